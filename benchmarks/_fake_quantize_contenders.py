"""What is compared in fake_quantize.py: the same quantizer, by everyone who has one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import qatx  # registers torch.ops.qatx
import torch
from _fake_quantize_subject import Subject
from brevitas.core.bit_width import BitWidthConst
from brevitas.core.function_wrapper import Identity
from brevitas.core.function_wrapper.shape import DynamicOverSubChannelBlockView
from brevitas.core.quant import IntQuant, RescalingIntQuant
from brevitas.core.scaling import IntScaling, ParameterScaling
from brevitas.core.zero_point import ZeroZeroPoint
from torch import Tensor

# torchao reports at import what does not concern a CPU.
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)

from torchao.quantization.quant_primitives import _fake_quantize_affine  # noqa: E402

assert qatx

QATX = "qatx"
ATEN_LEARNABLE = "ATen learnable scale"
BREVITAS = "Brevitas learned scale"
LIMIT = "limit: x * 1.0"


@dataclass(frozen=True)
class Contender:
    """A quantizer; `parameters` are what it learns."""

    name: str
    quantize: Callable[[Tensor], Tensor]
    parameters: Sequence[Tensor] = ()


def make_quantizers(subject: Subject, dtype: torch.dtype, *, compiled: bool) -> list[Contender]:
    """All of them; `compiled` brings torch.compile in, which takes seconds to begin with."""
    quantizers = [
        qatx_learned(subject),
        aten_fixed(subject),
        aten_learnable(subject),
        brevitas_learned(subject, dtype),
        torchao_fixed(subject, dtype),
        plain_lsq(subject, dtype),
    ]
    return [*quantizers, compiled_lsq(subject, dtype)] if compiled else quantizers


def limit() -> Contender:
    """What any function of a tensor costs that reads it once and writes a new one."""
    return Contender(LIMIT, lambda x: x * 1.0)


def qatx_learned(subject: Subject) -> Contender:
    """What `qatx.nn.FakeQuantize` calls."""
    raw = subject.scale().requires_grad_()
    zero_point = torch.zeros_like(raw)

    def quantize(x: Tensor) -> Tensor:
        scale = torch.ops.qatx.learned_scale(raw)
        y: Tensor = torch.ops.qatx.fake_quantize(x, scale, zero_point, **qatx_options(subject))
        return y

    return Contender(QATX, quantize, [raw])


def qatx_options(subject: Subject) -> dict[str, Any]:
    """What `torch.ops.qatx.fake_quantize` and its relatives take beside tensors."""
    return {
        "quant_min": subject.quant_min,
        "quant_max": subject.quant_max,
        "axis": subject.axis,
        "grad_scale": subject.grad_scale,
        "group_size": subject.group_size,
    }


def aten_fixed(subject: Subject) -> Contender:
    """What `torch.ao.quantization.FakeQuantize` calls. Groups are channels of a reshaped tensor."""
    scale = subject.scale().reshape(-1)
    zero_point = torch.zeros(scale.shape, dtype=torch.int32)
    limits = subject.quant_min, subject.quant_max

    def quantize(x: Tensor) -> Tensor:
        if subject.axis is None:
            return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, *limits)
        y = x if subject.group_size is None else x.reshape(-1, subject.group_size)
        y = torch.fake_quantize_per_channel_affine(
            y, scale, zero_point, _aten_axis(subject), *limits
        )
        return y.view_as(x)

    return Contender("ATen fixed scale", quantize)


def aten_learnable(subject: Subject) -> Contender:
    """What torch.ao's learnable fake quantizer calls. It takes its scale in float32 only."""
    scale = subject.scale().reshape(-1).requires_grad_()
    zero_point = torch.zeros_like(scale).requires_grad_()
    limits = subject.quant_min, subject.quant_max, subject.grad_scale

    def quantize(x: Tensor) -> Tensor:
        if subject.axis is None:
            return torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero_point, *limits)
        y = x if subject.group_size is None else x.reshape(-1, subject.group_size)
        y = torch._fake_quantize_learnable_per_channel_affine(
            y, scale, zero_point, _aten_axis(subject), *limits
        )
        return y.view_as(x)

    return Contender(ATEN_LEARNABLE, quantize, [scale, zero_point])


def _aten_axis(subject: Subject) -> int:
    assert subject.axis is not None
    if subject.group_size is None:
        return subject.axis
    # Only groups within rows are rows of a reshaped tensor.
    assert subject.axis == len(subject.shape) - 1
    assert subject.shape[subject.axis] % subject.group_size == 0
    return 0


def brevitas_learned(subject: Subject, dtype: torch.dtype) -> Contender:
    """The core of Brevitas' integer quantizers, without their proxies: a learned scale."""
    if subject.group_size is None:
        view = Identity()
    else:
        view = DynamicOverSubChannelBlockView(subject.group_size, subject.axis)
    threshold = subject.broadcast(subject.scale()) * -subject.quant_min
    quantizer = RescalingIntQuant(
        IntQuant(narrow_range=False, signed=True, input_view_impl=view),
        ParameterScaling(threshold),
        IntScaling(signed=True, narrow_range=False),
        ZeroZeroPoint(),
        BitWidthConst(subject.bits),
    ).to(dtype)

    def quantize(x: Tensor) -> Tensor:
        y: Tensor = quantizer(x)[0]
        return y.view_as(x)

    return Contender(BREVITAS, quantize, list(quantizer.parameters()))


def torchao_fixed(subject: Subject, dtype: torch.dtype) -> Contender:
    """What torchao's `IntxFakeQuantizer` calls."""
    shape = [size // block for size, block in zip(subject.shape, subject.block, strict=True)]
    scale = subject.scale().reshape(shape).to(dtype)
    zero_point = torch.zeros(shape, dtype=torch.int32)

    def quantize(x: Tensor) -> Tensor:
        y: Tensor = _fake_quantize_affine(
            x, subject.block, scale, zero_point, torch.int32, subject.quant_min, subject.quant_max
        )
        return y

    return Contender("torchao fixed scale", quantize)


def plain_lsq(subject: Subject, dtype: torch.dtype) -> Contender:
    """LSQ as it is usually written in PyTorch: operators, and `detach` for the estimators."""
    raw = subject.broadcast(subject.scale()).to(dtype).requires_grad_()

    def quantize(x: Tensor) -> Tensor:
        scale = raw * subject.grad_scale
        scale = (raw - scale).detach() + scale  # the value of raw, a scaled gradient
        v = (subject.split_groups(x) / scale).clamp(subject.quant_min, subject.quant_max)
        q = (v.round() - v).detach() + v  # the value of round(v), the gradient of v
        y: Tensor = q * scale
        return y.view_as(x)

    return Contender("LSQ in plain PyTorch", quantize, [raw])


def compiled_lsq(subject: Subject, dtype: torch.dtype) -> Contender:
    """The same through torch.compile, for this shape and the number of threads in force."""
    torch.compiler.reset()
    lsq = plain_lsq(subject, dtype)
    return Contender(
        "LSQ, torch.compile", torch.compile(lsq.quantize, dynamic=False), lsq.parameters
    )
