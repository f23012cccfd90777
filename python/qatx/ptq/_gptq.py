"""GPTQ: rounding weights column by column, with compensation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn

from qatx import _C
from qatx.ptq._layer_by_layer import LayerByLayer
from qatx.ptq._report import PtqReport
from qatx.ptq._rounding import round_weights


def gptq(
    model: nn.Module,
    data: Tensor | Iterable[Any],
    *,
    reference: nn.Module | None = None,
    num_samples: int | None = None,
    forward: Callable[[nn.Module, Any], object] | None = None,
    dampening: float = 0.01,
    block_size: int = 128,
    activation_order: bool = True,
    progress: bool | None = None,
) -> PtqReport:
    """Rounds weights one input after the other; those left make up for each error (GPTQ).

    For each layer, in the order in which they run, minimizes the squared difference of its output
    from that of the float model, where its inputs are those of the quantized model (Frantar et al.
    2022, arXiv 2210.17323). The scales stay. What is chosen is written into the layers' weights as
    code times scale: evaluation, `qatx.convert` and training find just these codes. No output
    channel gets worse, on `data`, than with rounding to nearest.

    Args:
        model: A calibrated model; its weights are changed. Weights of any granularity and any
            quantizer but "dorefa".
        data: A tensor of samples or an iterable of batches, as in `qatx.calibrate`; held in memory,
            because the model runs once for each layer.
        reference: The model whose outputs are wanted: the float model, or a copy of the prepared
            one from before. None: `model` without quantization, which must not be rounded yet.
        num_samples: Stop with the batch that reaches so many; None: all data.
        forward: Called as `forward(model, batch)` to feed batches of another form.
        dampening: Draws the weights to the float ones, for inputs that vary little; in units of the
            inputs' mean square. At least 0.
        block_size: Weights between two matrix products; makes no difference but in time.
        activation_order: Start with the inputs that are largest.
        progress: Whether to show a progress bar; None: if the standard error output is a terminal.

    Returns:
        The error of each layer before and after.

    Raises:
        TypeError: `model` is not a module, or a batch is of another form and there is no `forward`.
        ValueError: `model` is not calibrated or rounded already, `reference` has other layers,
            `data` is empty or makes NaN, or an argument is out of range. Nothing is changed.

    Example:
        >>> report = qatx.ptq.gptq(model, batches)
    """
    session = LayerByLayer(
        "qatx.ptq.gptq",
        model,
        data,
        num_samples=num_samples,
        forward=forward,
        reference=reference,
    )
    solve = partial(
        _C.gptq,
        dampening=dampening,
        block_size=block_size,
        activation_order=activation_order,
    )
    return round_weights("gptq", session, solve, progress)
