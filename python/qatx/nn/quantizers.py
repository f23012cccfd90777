"""Quantizers other than LSQ, as modules."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from qatx._C import QuantSpec
from qatx.nn.fake_quantize import FakeQuantize


class PACT(FakeQuantize):
    """Clips activations to `[0, alpha]` with a learned `alpha` (arXiv 1805.06085).

    For values that are not negative, such as those behind a ReLU. The arguments and states are
    those of `FakeQuantize`; the spec is unsigned. Calibration starts `alpha` at the end of the
    range; PACT's authors use L2 regularization on it.

    Attributes:
        alpha: Parameter of shape `scale_shape`, in place of `scale`. What is in use is
            `torch.ops.qatx.learned_scale(alpha)`.
    """

    alpha: nn.Parameter

    def _check_spec(self, spec: QuantSpec) -> None:
        if spec.signed or spec.narrow_range or spec.group_size is not None:
            raise ValueError(
                "PACT: spec must be unsigned, without narrow_range and group_size (its codes are 0 "
                f"to quant_max), got {spec}"
            )

    def _make_parameters(self, empty: Callable[[], Tensor]) -> None:
        if self.power_of_two or self.stochastic_rounding or self.pass_through:
            raise ValueError(
                "PACT: power_of_two, stochastic_rounding and pass_through must be False"
            )
        self.alpha = nn.Parameter(empty())

    def _reset_qparams(self) -> None:
        self.alpha.fill_(1.0)

    def _set_range(self, low: Tensor, high: Tensor) -> None:  # noqa: ARG002 (0 is the low end)
        self.alpha.copy_(torch.where(high > 0, high, 1.0))

    def _qparams(self) -> tuple[Tensor, Tensor]:
        alpha = torch.ops.qatx.learned_scale(self.alpha)
        return alpha / self.spec.quant_max, torch.zeros_like(alpha)

    def _quantize(self, x: Tensor) -> Tensor:
        alpha = torch.ops.qatx.learned_scale(self.alpha)
        y: Tensor = torch.ops.qatx.pact(x, alpha, self.spec.quant_max, self.spec.axis)
        return y


class MovingAverage(FakeQuantize):
    """Quantizes with a moving average of the range seen in training (arXiv 1712.05877).

    The arguments and states are those of `FakeQuantize`, but nothing is learned by an optimizer:
    in the state "train" and in training mode every call first moves `running_min` and
    `running_max`, and with them `scale` and `zero_point` (all buffers). In evaluation mode and in
    the state "frozen" nothing moves. Under `torch.utils.checkpoint` the recomputation may move
    the range once more, as it does the statistics of batch normalization.

    Attributes:
        averaging_constant: The weight of the latest range: 1 for weights, whose range is known,
            0.01 for activations.
        running_min, running_max: Buffers shaped like `scale`: the range; from calibration at first.
    """

    averaging_constant: float
    running_min: Tensor
    running_max: Tensor

    def _check_spec(self, spec: QuantSpec) -> None:
        if spec.group_size is not None:
            raise ValueError(f"MovingAverage: spec must have no group_size, got {spec}")

    def _make_parameters(self, empty: Callable[[], Tensor]) -> None:
        if self.power_of_two or self.stochastic_rounding or self.pass_through:
            raise ValueError(
                "MovingAverage: power_of_two, stochastic_rounding and pass_through must be False"
            )
        self.averaging_constant = 1.0 if self.role == "weight" else 0.01
        for name in ("scale", "zero_point", "running_min", "running_max"):
            self.register_buffer(name, empty())

    def _reset_qparams(self) -> None:
        super()._reset_qparams()
        self.running_min.fill_(math.inf)
        self.running_max.fill_(-math.inf)

    def _set_range(self, low: Tensor, high: Tensor) -> None:
        super()._set_range(low, high)
        self.running_min.copy_(low)
        self.running_max.copy_(high)

    def _qparams(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.zero_point

    def _quantize(self, x: Tensor) -> Tensor:
        if not self.training or self.state == "frozen":
            return self._fake_quantize(x, *self._qparams())
        y: Tensor
        y, *moved = torch.ops.qatx.moving_average_fake_quantize(
            x,
            self.running_min,
            self.running_max,
            self.averaging_constant,
            self.spec.quant_min,
            self.spec.quant_max,
            self.spec.symmetric,
            self.spec.axis,
        )
        buffers = (self.running_min, self.running_max, self.scale, self.zero_point)
        with torch.no_grad():
            for buffer, value in zip(buffers, moved, strict=True):
                buffer.copy_(value)
        return y


class DoReFa(FakeQuantize):
    """DoReFa's weights: tanh, and uniform codes without a zero (arXiv 1606.06160).

    `y = dorefa_weight(x) * max|x|`: the largest weight of a channel keeps its magnitude, where the
    paper makes it 1, so that a layer works without the batch normalization behind it, and with one
    that is folded into the weight. The codes are the odd numbers from `-(2**bits - 1)` to
    `2**bits - 1`, which fit 8 bits for up to 7 `bits`. Nothing is learned but the weight.

    The arguments and states are those of `FakeQuantize`; the role is "weight", the spec signed and
    symmetric.
    """

    def _check_spec(self, spec: QuantSpec) -> None:
        if not (spec.signed and spec.symmetric) or spec.narrow_range or spec.bits > 7:
            raise ValueError(
                "DoReFa: spec must be signed and symmetric, without narrow_range, with at most 7 "
                f"bits, got {spec}"
            )
        if spec.group_size is not None:
            raise ValueError(f"DoReFa: spec must have no group_size, got {spec}")

    def _make_parameters(self, empty: Callable[[], Tensor]) -> None:  # noqa: ARG002 (has none)
        if self.role != "weight":
            raise ValueError(f'DoReFa: role must be "weight", got {self.role!r}')
        if self.power_of_two or self.stochastic_rounding or self.pass_through:
            raise ValueError(
                "DoReFa: power_of_two, stochastic_rounding and pass_through must be False"
            )

    def _reset_qparams(self) -> None:
        """There are none."""

    def _set_range(self, low: Tensor, high: Tensor) -> None:
        """The weight says it."""

    def _qparams(self) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("DoReFa has no scale: its codes come from tanh")

    def _quantize(self, x: Tensor) -> Tensor:
        axis = self.spec.axis
        others = [d for d in range(x.dim()) if axis is None or d != axis % x.dim()]
        largest = x.detach().abs().amax(others).clamp_min(2.0**-64)
        shape = [1] * x.dim()
        if axis is not None:
            shape[axis] = -1
        values = torch.ops.qatx.dorefa_weight(x, self.spec.bits, axis) * largest.reshape(shape)
        # The values are on this grid already: it tells the converter the codes.
        steps = 2**self.spec.bits - 1
        y: Tensor = torch.ops.qatx.fake_quantize(
            values, largest / steps, torch.zeros_like(largest), -steps, steps, axis
        )
        return y
