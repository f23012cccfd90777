"""SmoothQuant: moving the difficulty of quantization from activations to weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from qatx import _C
from qatx._batches import ForwardFirst, batches_of, check_num_samples, limited, shown
from qatx._modes import evaluating
from qatx.ptq._channels import (
    Channels,
    Layer,
    Link,
    Norm,
    divide_outputs,
    magnitude_of_inputs,
    multiply_inputs,
    outputs_of,
)
from qatx.ptq._float_model import check_float_model
from qatx.ptq._report import PtqReport, PtqRow


def smooth_quant(
    model: nn.Module,
    data: Tensor | Iterable[Any],
    *,
    alpha: float = 0.5,
    num_samples: int | None = None,
    forward: Callable[[nn.Module, Any], object] | None = None,
    progress: bool | None = None,
) -> PtqReport:
    """Makes channels with outliers smaller and the weights that read them larger.

    One scale for a whole activation serves its largest channel. Where layers read what a
    normalization or a layer makes, each channel is divided there by `max|x|^alpha /
    max|w|^(1 - alpha)`, and the weights that read it are multiplied: the model computes what it
    did, from activations whose channels are more alike (Xiao et al. 2022, arXiv 2211.10438).

    The number is folded into layer normalization, batch normalization, a linear layer or a
    convolution. In between may be what `equalize` allows; a ReLU6 or a function like GELU may not.

    Args:
        model: A float model, before `qatx.prepare`, that torch.fx can trace; its parameters are
            changed.
        data: A tensor of samples or an iterable of batches, as in `qatx.calibrate`.
        alpha: 0 looks at weights only, 1 at activations only.
        num_samples: Stop with the batch that reaches so many; None: all data.
        forward: Called as `forward(model, batch)` to feed batches of another form.
        progress: Whether to show a progress bar; None: if the standard error output is a terminal.

    Returns:
        For each place, how many times the largest channel is the median one. Layers whose input
        could not be changed, with the reason.

    Raises:
        TypeError: `model` is not a module, or a batch is of another form and there is no `forward`.
        ValueError: `model` is prepared already, `data` is empty or makes NaN, or an argument is out
            of range. Nothing is changed.
        RuntimeError: torch.fx cannot trace `model`.

    Example:
        >>> report = qatx.ptq.smooth_quant(float_model, batches)
    """
    owner = "qatx.ptq.smooth_quant"
    check_float_model(owner, model)
    check_num_samples(owner, num_samples)
    if not 0 <= alpha <= 1:
        raise ValueError(f"{owner}: alpha must be from 0 to 1, got {alpha}")
    channels = Channels(model)
    links = [link for link in channels.links if not link.relu6]
    notes = [
        PtqRow(name=link.name, note="a ReLU6 limits the channels")
        for link in channels.links
        if link.relu6
    ]
    notes += [PtqRow(name=f"-> {name}", note=why) for name, why in channels.reasons.items()]
    watch = _Watch(owner, model, links)
    batches = shown(batches_of(data, num_samples), "SmoothQuant", progress)
    watch.feed(limited(batches, num_samples), forward or ForwardFirst(owner))
    rows = []
    for link in links:
        largest = watch.largest.get(link.name)
        if largest is None:
            notes.append(PtqRow(name=link.name, note="the data do not reach it"))
            continue
        scales = _smooth(model, link, largest, alpha)
        rows.append(
            PtqRow(name=link.name, before=_spread(largest), after=_spread(largest / scales))
        )
    return PtqReport(
        "smooth_quant", "the largest channel, in times of the median one", (*rows, *notes)
    )


class _Watch:
    """The largest value of each channel of each link."""

    def __init__(self, owner: str, model: nn.Module, links: list[Link]) -> None:
        self.largest: dict[str, Tensor] = {}
        self._owner = owner
        self._model = model
        self._links = links

    def feed(self, batches: Iterable[Any], forward: Callable[[nn.Module, Any], object]) -> None:
        """Runs the model on all batches."""
        hooks = [
            self._model.get_submodule(link.readers[0]).register_forward_pre_hook(
                self._hook(link), with_kwargs=True
            )
            for link in self._links
        ]
        empty = True
        try:
            with evaluating(self._model):
                for batch in batches:
                    empty = False
                    forward(self._model, batch)
        finally:
            for hook in hooks:
                hook.remove()
        if empty:
            raise ValueError(f"{self._owner}: data is empty; give at least one batch")
        for name, largest in self.largest.items():
            if not largest.isfinite().all():
                raise ValueError(f"{self._owner}: {name}: the values hold NaN or infinities")

    def _hook(self, link: Link) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        channels = outputs_of(self._model.get_submodule(link.maker))

        def look(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            x = (args[0] if args else named["input"]).detach().abs()
            spatial = len(getattr(module, "kernel_size", ()))
            if spatial:
                x = x.movedim(-1 - spatial, 0).reshape(channels, -1)
            else:
                x = x.reshape(-1, channels, x.shape[-1] // channels).transpose(0, 1).flatten(1)
            if x.numel() == 0:
                return
            largest = x.amax(1).double()
            before = self.largest.get(link.name, largest)
            self.largest[link.name] = torch.maximum(before, largest)

        return look


def _smooth(model: nn.Module, link: Link, largest: Tensor, alpha: float) -> Tensor:
    """Moves the scales of one link; returns them."""
    readers = [cast("Layer", model.get_submodule(path)) for path in link.readers]
    read = torch.stack([magnitude_of_inputs(layer, len(largest)) for layer in readers]).amax(0)
    scales = _C.migration_scales(largest, read, alpha)
    divide_outputs(cast("Norm", model.get_submodule(link.norm or link.maker)), scales)
    for layer in readers:
        multiply_inputs(layer, scales)
    return scales


def _spread(largest: Tensor) -> float:
    median = float(largest.median())
    return float(largest.max()) / median if median > 0 else float("inf")
