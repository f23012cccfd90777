"""The tensors of fake_quantize.py, and how they are quantized."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Subject:
    """A tensor and who shares a scale in it: all, the channels of `axis`, or groups along it."""

    shape: tuple[int, ...]
    axis: int | None = None
    group_size: int | None = None
    bits: int = 8

    def __str__(self) -> str:
        return f"{self.size} {self.sharing}"

    @property
    def size(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def sharing(self) -> str:
        if self.group_size is not None:
            return f"groups of {self.group_size}"
        return "per tensor" if self.axis is None else "per channel"

    @property
    def quant_min(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def quant_max(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """As `torch.ops.qatx.fake_quantize` takes it."""
        if self.axis is None:
            return ()
        if self.group_size is None:
            return (self.shape[self.axis],)
        sizes = list(self.shape)
        sizes[self.axis] = math.ceil(sizes[self.axis] / self.group_size)
        return tuple(sizes)

    @property
    def block(self) -> tuple[int, ...]:
        """The elements that share a scale, as a part of the shape."""
        if self.axis is None:
            return self.shape
        block = [1] * len(self.shape) if self.group_size else list(self.shape)
        block[self.axis] = self.group_size or 1
        return tuple(block)

    @property
    def grad_scale(self) -> float:
        """LSQ's, for a weight."""
        return 1.0 / math.sqrt(math.prod(self.block) * self.quant_max)

    def tensor(self, dtype: torch.dtype) -> Tensor:
        """Normal values; the scales below clip 0.3% of them."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.shape, generator=generator).to(dtype)

    def scale(self) -> Tensor:
        """A scale that differs a little from channel to channel."""
        generator = torch.Generator().manual_seed(1)
        return (0.95 + 0.1 * torch.rand(self.scale_shape, generator=generator)) * (
            3.0 / self.quant_max
        )

    def split_groups(self, x: Tensor) -> Tensor:
        """`x` with its axis split in two where there are groups, so that scales broadcast."""
        if self.axis is None or self.group_size is None:
            return x
        sizes = [*x.shape[: self.axis], -1, self.group_size, *x.shape[self.axis + 1 :]]
        return x.reshape(sizes)

    def broadcast(self, scale: Tensor) -> Tensor:
        """A scale in the shape in which it broadcasts against `split_groups(x)`."""
        if self.axis is None:
            return scale
        if self.group_size is not None:
            return scale.unsqueeze(self.axis + 1)
        return scale.reshape([-1 if i == self.axis else 1 for i in range(len(self.shape))])
