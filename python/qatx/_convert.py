"""`convert`: from a trained model to integers in TorchScript."""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
from torch import Tensor, nn

from qatx import _C, _torchscript
from qatx._calibrated import check_calibrated
from qatx._report import Report, ReportRow


def convert(
    model: nn.Module, example_inputs: Tensor | tuple[Any, ...]
) -> tuple[torch.jit.ScriptModule, Report]:
    """Turns a calibrated model into TorchScript that computes with integers.

    Args:
        model: A calibrated, perhaps trained, model. It is not changed.
        example_inputs: A tensor, or a tuple of tensors, the forward's arguments. The model is
            traced with them; batch and image sizes may differ later.

    Returns:
        The converted model, in evaluation mode, and a report of what became integer and what stayed
        float.

    Raises:
        TypeError: `model` is not a module, or `example_inputs` neither a tensor nor a tuple of
            tensors.
        ValueError: `model` is not prepared or not calibrated.
        RuntimeError: `model` cannot be traced.

    Example:
        >>> converted, report = qatx.convert(model, torch.rand(1, 3, 32, 32))
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"qatx.convert: model must be a torch.nn.Module, got {type(model).__name__}"
        )
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if not isinstance(example_inputs, tuple):
        raise TypeError(
            "qatx.convert: example_inputs must be a tensor or a tuple of tensors, got "
            f"{type(example_inputs).__name__}"
        )
    for index, value in enumerate(example_inputs):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"qatx.convert: example_inputs[{index}] must be a tensor, got "
                f"{type(value).__name__}"
            )
    check_calibrated("qatx.convert", model)
    # Archives cross into C++ and back whatever pybind11 torch and qatx were built with.
    archive, rows = _C.convert(_trace(model, example_inputs), list(example_inputs))
    converted = _torchscript.load(io.BytesIO(archive))
    return converted, Report(tuple(ReportRow(**row) for row in rows))


def _trace(model: nn.Module, example_inputs: tuple[Any, ...]) -> bytes:
    deployed = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        traced = _torchscript.trace(deployed, example_inputs)
    except Exception as error:
        raise RuntimeError(
            f"qatx.convert: {type(model).__name__} cannot be traced with the example inputs: "
            f"{error}"
        ) from error
    archive = io.BytesIO()
    _torchscript.save(traced, archive)
    return archive.getvalue()
