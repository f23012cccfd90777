"""What calibration data look like, and how much of them there is."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import torch
from torch import Tensor

from qatx._batches import tensors_in

_ENOUGH_PAIRS = 1000  # of neighbouring pixels, to tell a correlation from chance
_NOISE_CORRELATION = 0.1
_DUPLICATE_SHARE = 0.1


class DataCheck:
    """Counts samples, and notices noise and duplicates among them.

    Looks at the first tensor of each batch; its first dimension counts samples.

    * Noise: the correlation of each pixel with its neighbour to the right and below, the mean over
      all floating-point images (N, C, H, W), each channel less its mean over the batch. It is about
      1 / sqrt(pairs) for independent values; photographs have 0.8 and more.
    * Duplicates: samples whose bytes have the 64-bit hash of an earlier sample.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._hashes: set[int] = set()
        self._pairs = 0
        self._images = torch.zeros(2, dtype=torch.int64)  # right, below
        self._correlations = torch.zeros(2, dtype=torch.float64)

    def add(self, batch: Any) -> None:  # noqa: ANN401 (any type of batch)
        """Looks at one batch."""
        x = next(tensors_in(batch), None)
        if x is None or x.dim() == 0:
            return
        x = x.detach().cpu()
        self.samples += len(x)
        for sample in x:
            content = sample.contiguous()
            size = content.numel() * content.element_size()
            self._hashes.add(hash(ctypes.string_at(content.data_ptr(), size)))
        if x.dim() == 4 and x.is_floating_point():
            self._correlate(x.float())

    def _correlate(self, x: Tensor) -> None:
        x = torch.nan_to_num(x - x.mean((0, 2, 3), keepdim=True), 0.0, 0.0, 0.0)
        neighbours = ((x[..., :-1], x[..., 1:]), (x[..., :-1, :], x[..., 1:, :]))
        for i, (a, b) in enumerate(neighbours):
            # Image by image, so that one with a glitch does not speak for all.
            squares = (a.square() + b.square()).sum((1, 2, 3)).double() / 2
            varied = squares > 0
            products = (a * b).sum((1, 2, 3)).double()
            self._correlations[i] += (products[varied] / squares[varied]).sum()
            self._images[i] += varied.sum()
        self._pairs += min(a.numel() for a, _ in neighbours)

    @property
    def correlation(self) -> float:
        """Of neighbouring pixels, the larger of both directions; NaN where there are too few."""
        if self._pairs < _ENOUGH_PAIRS or bool((self._images == 0).any()):
            return math.nan
        return float((self._correlations / self._images).max())

    def problems(self) -> list[str]:
        """What is wrong, for the user, with figures."""
        found = []
        correlation = self.correlation
        if abs(correlation) < _NOISE_CORRELATION:
            found.append(
                "the images look like random noise: neighbouring pixels correlate by "
                f"{correlation:.3f} (photographs: 0.8 and more). Ranges from noise are not those "
                "of real data"
            )
        duplicates = self.samples - len(self._hashes)
        if duplicates > _DUPLICATE_SHARE * self.samples:
            found.append(
                f"{duplicates:,} of {self.samples:,} samples are duplicates of others and tell "
                "nothing new"
            )
        return found
