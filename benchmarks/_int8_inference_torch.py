"""What runs in torch: qatx, float32, and torch.ao's integers."""

from __future__ import annotations

import copy
import warnings

import qatx
import torch
from _int8_inference_subject import Call, Contender, Subject
from torch import Tensor, nn

QATX = "qatx INT8"
EAGER = "torch FP32"
OPTIMIZED = "torch FP32 jit"
TORCH_AO = "torch.ao INT8"


def prepare_qatx(subject: Subject) -> Contender:
    """As a user does it: prepare, calibrate, convert, save, load."""
    prepared = qatx.prepare(subject.model)
    qatx.calibrate(prepared, subject.calibration)
    converted, report = qatx.convert(prepared, subject.inputs(1))
    path = subject.folder / "qatx.pt"
    qatx.save(converted, path)
    return Contender(
        QATX,
        lambda x, _: called(qatx.load(path), x),
        int8=True,
        integer_macs=round(report.integer_share_of_macs, 4),
    )


def prepare_eager(subject: Subject) -> Contender:
    model = channels_last(subject.model)
    return Contender(EAGER, lambda x, _: called(model, in_channels_last(x)), int8=False)


def prepare_optimized(subject: Subject) -> Contender:
    """Frozen and with oneDNN's layouts, once for each shape of inputs."""
    model = channels_last(subject.model)

    def start(x: Tensor, _: int) -> Call:
        x = in_channels_last(x)
        frozen = torch.jit.freeze(torch.jit.trace(model, x))
        return called(torch.jit.optimize_for_inference(frozen), x)

    return Contender(OPTIMIZED, start, int8=False)


def prepare_torch_ao(subject: Subject) -> Contender:
    """Post-training quantization of the FX graph for the x86 engine, traced and frozen."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = "x86"
    mapping = get_default_qconfig_mapping("x86")
    if subject.architecture.vocabulary is not None:
        mapping.set_object_type(nn.Embedding, None)  # takes a configuration of its own
    # That of the x86 engine is off by more than INT8 explains: with it, the output of a U-Net has
    # 3 dB, without it 21.
    mapping.set_object_type(nn.ConvTranspose2d, None)
    prepared = prepare_fx(copy.deepcopy(subject.model), mapping, (subject.inputs(1),))
    for batch in subject.calibration:
        prepared(batch)
    quantized = convert_fx(prepared)

    def start(x: Tensor, _: int) -> Call:
        x = in_channels_last(x)
        return called(torch.jit.freeze(torch.jit.trace(quantized, x)), x)

    return Contender(TORCH_AO, start, int8=True)


def prepare_torch_ao_dynamic(subject: Subject) -> Contender:
    """What torch.ao recommends for transformers: linear layers whose inputs get ranges as they
    come."""
    from torch.ao.quantization import quantize_dynamic

    torch.backends.quantized.engine = "x86"
    quantized = quantize_dynamic(copy.deepcopy(subject.model), {nn.Linear})

    def start(x: Tensor, _: int) -> Call:
        return called(torch.jit.freeze(torch.jit.trace(quantized, x)), x)

    return Contender(TORCH_AO, start, int8=True, variant="dynamic")


def called(model: nn.Module, x: Tensor) -> Call:
    """A call, for the number of threads in force when it is called."""
    return lambda: model(x)


def channels_last(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(memory_format=torch.channels_last)


def in_channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


# torch.ao and TorchScript are deprecated, and say so at every step.
warnings.filterwarnings("ignore", category=DeprecationWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="torch.ao")
