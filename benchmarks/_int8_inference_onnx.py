"""ONNX Runtime, and the ONNX files that OpenVINO reads too.

torch 2.13 exports through torch.export (`dynamo=True`, with onnxscript), the batch as a symbol.
Before quantization, ONNX Runtime's own preprocessing folds batch normalization and infers shapes,
as its documentation recommends.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from _int8_inference_subject import Call, Contender, Subject
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

ORT_FP32 = "ONNX Runtime FP32"
ORT_INT8 = "ONNX Runtime INT8"

INPUT, BATCH = "x", "batch"
ERRORS_ONLY = 3


def export_float(subject: Subject) -> Path:
    """The float model; the same file for everyone who asks."""
    path = subject.folder / "float.onnx"
    if not path.exists():
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                subject.model,
                (subject.inputs(2),),
                path,
                dynamo=True,
                input_names=[INPUT],
                output_names=["y"],
                dynamic_shapes=({0: torch.export.Dim(BATCH, min=1, max=1024)},),
                external_data=False,
                verbose=False,
            )
    return path


def export_preprocessed(subject: Subject) -> Path:
    path = subject.folder / "preprocessed.onnx"
    if not path.exists():
        # Symbolic shape inference knows few of the operators that transformers are exported to.
        transformer = subject.architecture.transformer
        quant_pre_process(export_float(subject), path, skip_symbolic_shape=transformer)
    return path


def export_quantized(subject: Subject) -> Path:
    """Quantize and dequantize operators around each layer: unsigned activations, weights signed and
    by channel."""
    path = subject.folder / "quantized.onnx"
    if not path.exists():
        quantize_static(
            export_preprocessed(subject),
            path,
            Calibration(subject),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return path


class Calibration(CalibrationDataReader):
    """The inputs that ranges are taken from, as ONNX Runtime asks for them."""

    def __init__(self, subject: Subject) -> None:
        self._batches: Iterator[Tensor] = iter(subject.calibration)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.numpy()}


def prepare_ort_float(subject: Subject) -> Contender:
    path = export_float(subject)
    return Contender(ORT_FP32, lambda x, threads: run(path, x, threads), int8=False)


def prepare_ort_static(subject: Subject) -> Contender:
    path = export_quantized(subject)
    return Contender(ORT_INT8, lambda x, threads: run(path, x, threads), int8=True, variant="QDQ")


def prepare_ort_dynamic(subject: Subject) -> Contender:
    """What ONNX Runtime recommends for transformers: ranges of activations as they come."""
    path = subject.folder / "dynamic.onnx"
    quantize_dynamic(export_preprocessed(subject), path, per_channel=True)
    return Contender(
        ORT_INT8, lambda x, threads: run(path, x, threads), int8=True, variant="dynamic"
    )


def run(path: Path, x: Tensor, threads: int) -> Call:
    """Reads the memory of `x` itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = ERRORS_ONLY
    options.add_free_dimension_override_by_name(BATCH, len(x))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {INPUT: x.numpy()}
    return lambda: session.run(None, inputs)[0]
