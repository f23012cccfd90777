"""Bias correction: what quantization adds to a channel on average is taken away again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from qatx._batches import shown
from qatx.ptq._layer_by_layer import LayerByLayer
from qatx.ptq._report import PtqReport, PtqRow
from qatx.ptq._rounding import report_of


def correct_bias(
    model: nn.Module,
    data: Tensor | Iterable[Any],
    *,
    reference: nn.Module | None = None,
    num_samples: int | None = None,
    forward: Callable[[nn.Module, Any], object] | None = None,
    progress: bool | None = None,
) -> PtqReport:
    """Corrects biases, so that each channel of each layer is right on average.

    Layer after layer, in the order in which they run, adds to the bias the mean difference of the
    layer's output (before the ReLU) from that of the float model (Nagel et al. 2019, arXiv
    1906.04721, section 4.2, with data; Finkelstein et al. 2019, arXiv 1906.03193). In a layer with
    folded batch normalization this goes into its beta (without one, its running mean). A layer
    without a bias gets one: make optimizers afterwards.

    Args:
        model: A calibrated model; its biases are changed.
        data: A tensor of samples or an iterable of batches, as in `qatx.calibrate`; held in memory,
            because the model runs once for each layer.
        reference: The model whose outputs are wanted: the float model, or a copy of the prepared
            one from before. None: `model` without quantization, whose weights must not be rounded
            and whose biases must not be corrected yet.
        num_samples: Stop with the batch that reaches so many; None: all data.
        forward: Called as `forward(model, batch)` to feed batches of another form.
        progress: Whether to show a progress bar; None: if the standard error output is a terminal.

    Returns:
        The error of each layer before and after.

    Raises:
        TypeError: `model` is not a module, or a batch is of another form and there is no `forward`.
        ValueError: `model` is not calibrated or rounded already, `reference` has other layers,
            `data` is empty or makes NaN, or `num_samples` is out of range. Nothing is changed.

    Example:
        >>> report = qatx.ptq.correct_bias(model, batches)
    """
    session = LayerByLayer(
        "qatx.ptq.correct_bias",
        model,
        data,
        num_samples=num_samples,
        forward=forward,
        reference=reference,
    )
    with session.running() as order:
        rows = [_correct(session, name) for name in shown(order, "correct_bias", progress)]
    return report_of("correct_bias", session, order, rows)


def _correct(session: LayerByLayer, name: str) -> PtqRow:
    layer = session.layers[name]
    weight = layer.weight_fake_quantize(layer._deployed_weight())
    bias = layer._deployed_bias()
    count = 0
    missing = torch.zeros(weight.shape[0], dtype=torch.float64)
    error = square = 0.0
    for call in session.visit(name):
        difference = _by_channel(layer, call.y - layer._multiply(call.x, weight, bias))
        missing += difference.sum(1).cpu()
        error += float(difference.square().sum())
        square += float(call.y.double().square().sum())
        count += difference.shape[1]
    mean = missing / max(count, 1)
    if not mean.isfinite().all():
        raise ValueError(
            f"qatx.ptq.correct_bias: {name or 'the model'}: the layer's outputs hold NaN or "
            "infinities"
        )
    layer._add_to_bias(mean.to(weight))
    scale = 1.0 / square if square > 0 else 0.0
    left = max(error - count * float(mean.square().sum()), 0.0)
    return PtqRow(name=name, before=error * scale, after=left * scale)


def _by_channel(layer: nn.Module, y: Tensor) -> Tensor:
    """`[channels, elements]`, float64."""
    kernel = getattr(layer, "kernel_size", ())
    return y.movedim(-1 - len(kernel), 0).flatten(1).double()
