"""AdaRound: learning whether to round weights up or down."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn

from qatx import _C
from qatx.ptq._layer_by_layer import LayerByLayer
from qatx.ptq._report import PtqReport
from qatx.ptq._rounding import round_weights


def adaround(
    model: nn.Module,
    data: Tensor | Iterable[Any],
    *,
    reference: nn.Module | None = None,
    num_samples: int | None = None,
    forward: Callable[[nn.Module, Any], object] | None = None,
    iterations: int = 2000,
    learning_rate: float = 0.1,
    regularization: float = 10.0,
    warm_up: float = 0.2,
    beta: tuple[float, float] = (20.0, 2.0),
    dampening: float = 0.01,
    progress: bool | None = None,
) -> PtqReport:
    """Learns for each weight whether to round it up or down (AdaRound).

    For each layer, in the order in which they run, minimizes the squared difference of its output
    from that of the float model, where its inputs are those of the quantized model (Nagel et al.
    2020, arXiv 2004.10568). The scales stay. What is chosen is written into the layers' weights as
    code times scale: evaluation, `qatx.convert` and training find just these codes. No output
    channel gets worse, on `data`, than with rounding to nearest.

    The error is known for all data at once, so each step of Adam has the whole gradient, and far
    fewer steps are needed than with batches (10,000 in the paper).

    Args:
        model: A calibrated model; its weights are changed. Weights of any granularity and any
            quantizer but "dorefa".
        data: A tensor of samples or an iterable of batches, as in `qatx.calibrate`; held in memory,
            because the model runs once for each layer.
        reference: The model whose outputs are wanted: the float model, or a copy of the prepared
            one from before. None: `model` without quantization, which must not be rounded yet.
        num_samples: Stop with the batch that reaches so many; None: all data.
        forward: Called as `forward(model, batch)` to feed batches of another form.
        iterations: Steps of Adam for each layer; at least 1.
        learning_rate: Of Adam; positive.
        regularization: Weight of the term that makes roundings definite, where the error is in
            units of what rounding one weight to nearest costs on average; positive.
        warm_up: The share of iterations without that term; from 0 to below 1.
        beta: The exponent of that term, at the beginning and at the end; more than 1.
        dampening: Draws the weights to the float ones, for inputs that vary little; in units of the
            inputs' mean square. At least 0.
        progress: Whether to show a progress bar; None: if the standard error output is a terminal.

    Returns:
        The error of each layer before and after.

    Raises:
        TypeError: `model` is not a module, or a batch is of another form and there is no `forward`.
        ValueError: `model` is not calibrated or rounded already, `reference` has other layers,
            `data` is empty or makes NaN, or an argument is out of range. Nothing is changed.

    Example:
        >>> report = qatx.ptq.adaround(model, batches, iterations=100)
    """
    session = LayerByLayer(
        "qatx.ptq.adaround",
        model,
        data,
        num_samples=num_samples,
        forward=forward,
        reference=reference,
    )
    solve = partial(
        _C.adaround,
        dampening=dampening,
        iterations=iterations,
        learning_rate=learning_rate,
        regularization=regularization,
        warm_up=warm_up,
        beta=beta,
    )
    return round_weights("adaround", session, solve, progress)
