"""What ranges look like while and after they are observed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from qatx._ranges import RangeChoice
from qatx.nn import FakeQuantize

_MOVING = 0.2  # growth of a range in the last quarter of the samples
_FEW_BATCHES = 4
_OUTLIER = 100.0  # times the median of the channels
_FEW_CHANNELS = 8


class MovingCheck:
    """Notices a tensor whose range still grows in the last quarter of the samples."""

    def __init__(self) -> None:
        self._history: list[tuple[int, dict[str, tuple[Tensor, Tensor]]]] = []

    def add(self, samples: int, fake_quantizes: dict[str, FakeQuantize]) -> None:
        """After a batch; `samples` were seen until now."""
        ranges = {
            name: (module.observer.min, module.observer.max)
            for name, module in fake_quantizes.items()
            if module.observer is not None
        }
        self._history.append((samples, ranges))

    def problems(self) -> list[str]:
        """What is wrong, for the user, with figures."""
        if len(self._history) < _FEW_BATCHES:
            return []
        total, last = self._history[-1]
        earlier = [ranges for samples, ranges in self._history if samples <= 0.75 * total]
        if not earlier:
            return []
        grown = {name: _growth(earlier[-1][name], last[name]) for name in last}
        moving = {name: growth for name, growth in grown.items() if growth > _MOVING}
        if not moving:
            return []
        worst = max(moving, key=moving.__getitem__)
        return [
            f"the ranges of {len(moving)} of {len(last)} tensors still move at the end: that of "
            f"{worst} grew by {moving[worst]:.0%} in the last quarter of the samples. Use more"
        ]


def _growth(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> float:
    widths = [high.clamp(min=0) - low.clamp(max=0) for low, high in (before, after)]
    was_there = widths[0] > 0
    if not bool(was_there.any()):
        return 0.0
    return float((widths[1][was_there] / widths[0][was_there]).max()) - 1.0


class ChannelCheck:
    """Notices a channel whose values are far larger than those of its neighbours.

    Of activations, in the first batch only: features that stand out do so for all data, and a look
    at channels is a second read of the tensor. Channels are dimension 1 of tensors with two or four
    dimensions and the last of those with three.
    """

    def __init__(self, fake_quantizes: dict[str, FakeQuantize]) -> None:
        self._largest: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = [
            module.register_forward_pre_hook(self._hook(name))
            for name, module in fake_quantizes.items()
            if module.role == "activation"
        ]

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0].detach()
            channel = {2: 1, 3: 2, 4: 1}.get(x.dim())
            if channel is not None and x.numel() > 0:
                sizes = torch.nan_to_num(x.float().abs(), 0.0, 0.0, 0.0)
                self._largest[name] = sizes.amax([d for d in range(x.dim()) if d != channel])

        return look

    def end_batch(self) -> None:
        """After the first batch, or before it where there is none."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def add_weight(self, name: str, choice: RangeChoice) -> None:
        """The range of a weight; channels are those that have scales of their own."""
        if choice.low.dim() == 1:
            self._largest[name] = torch.maximum(-choice.low, choice.high)

    def problems(self) -> list[str]:
        """What is wrong, for the user, with figures."""
        ratios: dict[str, tuple[float, int]] = {}
        for name, sizes in self._largest.items():
            median = float(sizes.median())
            if sizes.numel() >= _FEW_CHANNELS and median > 0:
                ratios[name] = (float(sizes.max()) / median, int(sizes.argmax()))
        found = {name: ratio for name, ratio in ratios.items() if ratio[0] >= _OUTLIER}
        if not found:
            return []
        worst = max(found, key=lambda name: found[name][0])
        ratio, channel = found[worst]
        return [
            f"channels stand out in {len(found)} tensors: the range of channel {channel} of "
            f"{worst} is {ratio:,.0f} times the median of its neighbours"
        ]
