"""Ways to choose the range that the integer codes of a tensor are spread over."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor

from qatx import _C

#: `qatx._C.range_methods()`, for type checkers; a test compares them.
RangeMethod: TypeAlias = Literal[
    "min_max", "moving_average", "percentile", "mse", "kl", "lsq", "best"
]


def check_range_method(owner: str, name: str, value: object) -> None:
    """Raises ValueError where there is no such method."""
    methods = _C.range_methods()
    if value not in methods:
        raise ValueError(f"{owner}: {name} must be one of {', '.join(methods)}, got {value!r}")


class RangeChoice(NamedTuple):
    """What a method chose for a tensor, and what that is expected to cost.

    All are float64 tensors of the shape of the scales. Expectations are those of the histogram: the
    values of a bin count as its middle.

    Attributes:
        low: The low end of the range, in the unit of the values.
        high: The high end.
        clipped_share: The share of the values that the codes do not reach, 0 to 1.
        error: The mean of `(x - x_hat)**2`, with `x_hat` the quantized value.
        mean_square: The mean of `x**2`.
    """

    low: Tensor
    high: Tensor
    clipped_share: Tensor
    error: Tensor
    mean_square: Tensor

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise of the whole tensor, in decibels; infinite without noise."""
        noise, signal = float(self.error.sum()), float(self.mean_square.sum())
        if noise == 0.0:
            return math.inf
        return 10 * math.log10(signal / noise) if signal > 0.0 else -math.inf
