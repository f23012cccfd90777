"""OpenVINO, with the files that ONNX Runtime gets, and with those that its own quantizer makes."""

from __future__ import annotations

import logging
from pathlib import Path

import openvino
from _int8_inference_onnx import export_float, export_quantized
from _int8_inference_subject import Call, Contender, Subject
from torch import Tensor

OPENVINO_FP32 = "OpenVINO FP32"
OPENVINO_INT8 = "OpenVINO INT8"


def prepare_openvino_float(subject: Subject) -> Contender:
    """Without a hint, OpenVINO computes in bfloat16 where the CPU can."""
    path = export_float(subject)
    return Contender(
        OPENVINO_FP32,
        lambda x, threads: run(path, x, threads, INFERENCE_PRECISION_HINT="f32"),
        int8=False,
    )


def prepare_openvino_onnx(subject: Subject) -> Contender:
    path = export_quantized(subject)
    return Contender(
        OPENVINO_INT8, lambda x, threads: run(path, x, threads), int8=True, variant="QDQ"
    )


def prepare_openvino_nncf(subject: Subject) -> Contender:
    import nncf

    nncf.set_log_level(logging.ERROR)
    images = [image[None].numpy() for batch in subject.calibration for image in batch]
    quantized = nncf.quantize(
        openvino.Core().read_model(export_float(subject)),
        nncf.Dataset(images),
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER if subject.architecture.transformer else None,
    )
    path = subject.folder / "nncf.xml"
    openvino.save_model(quantized, path, compress_to_fp16=False)
    return Contender(
        OPENVINO_INT8, lambda x, threads: run(path, x, threads), int8=True, variant="NNCF"
    )


def run(path: Path, x: Tensor, threads: int, **options: str) -> Call:
    """Reads the memory of `x` itself, and has the output where OpenVINO writes it."""
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(x.shape))
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            **options,
        },
    )
    request = compiled.create_infer_request()
    inputs = {0: x.numpy()}
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)[0]
