"""Cross-layer equalization."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from qatx import _C
from qatx.ptq._channels import (
    Channels,
    Layer,
    Link,
    Norm,
    divide_outputs,
    magnitude_of_inputs,
    magnitude_of_outputs,
    multiply_inputs,
)
from qatx.ptq._float_model import check_float_model
from qatx.ptq._report import PtqReport, PtqRow

_ROUNDS = 100
_SETTLED = 1e-4  # of the logarithm of a scale


def equalize(model: nn.Module, *, replace_relu6: bool = False) -> PtqReport:
    """Gives the channels between layers weights of one range, without changing the model's output.

    Where only layers read what a layer makes, a channel may be divided by any positive number where
    it is made, if the weights that read it are multiplied. Cross-layer equalization (Nagel et al.
    2019, arXiv 1906.04721, section 4.1) chooses the numbers so that both get the same range, pair
    after pair until nothing moves: weights with one scale for the whole tensor then lose the least.

    Between the layers may be batch normalization (which is folded into the weights that count, and
    takes the number into its gamma and beta), ReLU, LeakyReLU, pooling, dropout, zero padding and
    flattening. A ReLU6 limits all channels to one value, so the output would change: such places
    are left alone, or made a ReLU, as the paper does. Depthwise convolutions are layers like
    others. Channels that are not in use, because a weight on either side is 0, stay.

    Args:
        model: A float model, before `qatx.prepare`, that torch.fx can trace; its weights, biases
            and batch normalization are changed.
        replace_relu6: Replace `nn.ReLU6` modules between layers by `nn.ReLU`, which changes what
            the model computes where they limit something.

    Returns:
        For each place, the mean over channels of how much of the weights' range they use, made
        times read (the paper's equation 9; 1 is the most). Places that were left alone, with the
        reason.

    Raises:
        TypeError: `model` is not a module.
        ValueError: `model` is prepared already.
        RuntimeError: torch.fx cannot trace `model`.

    Example:
        >>> report = qatx.ptq.equalize(float_model)
    """
    check_float_model("qatx.ptq.equalize", model)
    channels = Channels(model)
    links, notes = [], []
    for link in channels.links:
        note = _why_not(link, model, replace_relu6)
        if note:
            notes.append(PtqRow(name=link.name, note=note))
        else:
            links.append(link)
    notes += [PtqRow(name=f"-> {name}", note=why) for name, why in channels.reasons.items()]
    before = [_precision(model, link) for link in links]
    for _ in range(_ROUNDS):
        if max((_equalize(model, link) for link in links), default=0.0) < _SETTLED:
            break
    for path in {path for link in links for path in link.relu6}:
        model.set_submodule(path, nn.ReLU())
    rows = [
        PtqRow(name=link.name, before=was, after=_precision(model, link))
        for link, was in zip(links, before, strict=True)
    ]
    measure = "share of the weights' range that a channel uses on average, made times read"
    return PtqReport("equalize", measure, (*rows, *notes))


def _why_not(link: Link, model: nn.Module, replace_relu6: bool) -> str:
    if link.layer is None:
        return f"{link.norm} is no layer with weights"
    if not link.relu6:
        return ""
    if not replace_relu6:
        return "a ReLU6 limits the channels; replace_relu6 makes it a ReLU"
    if not all(path and type(model.get_submodule(path)) is nn.ReLU6 for path in link.relu6):
        return "a ReLU6 that is not an nn.ReLU6 module limits the channels"
    return ""


def _magnitudes(model: nn.Module, link: Link) -> tuple[Tensor, Tensor]:
    """The largest weights that make each channel, and that read it."""
    assert link.layer is not None
    layer = cast("Layer", model.get_submodule(link.layer))
    norm = None if link.norm is None else cast("Norm", model.get_submodule(link.norm))
    made = magnitude_of_outputs(layer, norm).double()
    read = [
        magnitude_of_inputs(cast("Layer", model.get_submodule(path)), len(made))
        for path in link.readers
    ]
    return made, torch.stack(read).amax(0).double()


def _precision(model: nn.Module, link: Link) -> float:
    made, read = _magnitudes(model, link)
    widest = float(made.max() * read.max())
    return float((made * read).mean()) / widest if widest > 0 else 1.0


def _equalize(model: nn.Module, link: Link) -> float:
    """Equalizes the channels of one link; returns how far a scale was from 1, as a logarithm."""
    scales = _C.equalization_scales(*_magnitudes(model, link))
    divide_outputs(cast("Layer", model.get_submodule(link.norm or link.maker)), scales)
    for path in link.readers:
        multiply_inputs(cast("Layer", model.get_submodule(path)), scales)
    return float(scales.log().abs().max())
