"""`calibrate`: sets all scales from data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from qatx.nn import FakeQuantize


def calibrate(
    model: nn.Module,
    data: Tensor | Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], object] | None = None,
) -> None:
    """Sets the scales and zero points of a prepared model from the values that data leads to.

    The range of a tensor is the smallest and the largest finite value over all data. The model runs
    in float, in evaluation mode and without gradients; its modes are restored. Afterwards it is
    ready for evaluation (post-training quantization), training and conversion. It may be calibrated
    again, which forgets what was learned about scales.

    Args:
        model: What `qatx.prepare` returned, or any module that holds modules of `qatx.nn`.
        data: A tensor (one batch) or an iterable of batches, such as a DataLoader. Of a batch that
            is a tuple or a list the model gets the first element, because the others usually are
            labels.
        forward: Called as `forward(model, batch)` to feed batches of another form.

    Raises:
        TypeError: A batch is not a tensor, nor a tuple or list that starts with one, and there is
            no `forward`.
        ValueError: `model` has nothing to calibrate, `data` is empty, or a quantized value was
            never seen or never finite.
        Exception: What the model or `data` raises. The model is then as it was before.

    Example:
        >>> qatx.calibrate(model, [torch.rand(8, 3, 32, 32) for _ in range(4)])
    """
    fake_quantizes = {
        name: module for name, module in model.named_modules() if isinstance(module, FakeQuantize)
    }
    if not fake_quantizes:
        raise ValueError(
            "qatx.calibrate: the model has nothing to calibrate; call qatx.prepare first"
        )
    before = {name: copy.deepcopy(module.state_dict()) for name, module in fake_quantizes.items()}
    modes = {module: module.training for module in model.modules()}
    try:
        for fake_quantize in fake_quantizes.values():
            fake_quantize.begin_calibration()
        _run(model.eval(), [data] if isinstance(data, Tensor) else data, forward or _forward_first)
        problems = [_finish(name, module) for name, module in fake_quantizes.items()]
        if any(problems):
            raise ValueError(f"qatx.calibrate: {'; '.join(filter(None, problems))}")
    except BaseException:
        for name, fake_quantize in fake_quantizes.items():
            fake_quantize.load_state_dict(before[name])
        raise
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def _run(
    model: nn.Module, data: Iterable[Any], forward: Callable[[nn.Module, Any], object]
) -> None:
    empty = True
    for batch in data:
        empty = False
        forward(model, batch)
    if empty:
        raise ValueError("qatx.calibrate: data is empty; give at least one batch")


def _forward_first(model: nn.Module, batch: object) -> object:
    x = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(x, Tensor):
        raise TypeError(
            "qatx.calibrate: a batch must be a tensor, or a tuple or list that starts with one, "
            f"got {type(batch).__name__}; use the argument forward for batches of another form"
        )
    return model(x)


def _finish(name: str, fake_quantize: FakeQuantize) -> str | None:
    """Returns what is wrong."""
    try:
        fake_quantize.finish_calibration()
    except ValueError as error:
        return f"{name or 'the model'}: {error}"
    return None
