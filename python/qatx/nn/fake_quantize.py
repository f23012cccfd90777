"""Fake quantization with a learned scale, as a module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from qatx._C import QuantSpec, choose_qparams
from qatx.qconfig import InitialScale

Role: TypeAlias = Literal["weight", "activation"]
State: TypeAlias = Literal["uncalibrated", "calibrate", "train", "frozen"]
_STATES: tuple[State, ...] = get_args(State)


class FakeQuantize(nn.Module):
    """Rounds a tensor to the values that its integer codes stand for, with a learned scale (LSQ).

    Where the spec is asymmetric, the zero point is learned too (LSQ+). The other quantizers of
    `qatx.nn` are subclasses. A module is always in one of four states, which `state_dict` carries:

    * `"uncalibrated"`: there is no scale yet; calling the module is an error.
    * `"calibrate"`: passes its input through and observes it.
    * `"train"`: quantizes; what the quantizer learns is learned.
    * `"frozen"`: quantizes; scale and zero point stay.

    Nothing but the state "calibrate" and an optimizer ever changes a scale, in training or in
    evaluation mode. All parameters and buffers have their final shape from construction, so that an
    optimizer may be made and a state dict loaded at any time.

    Attributes:
        spec: Bits, sign, symmetry, axis and groups.
        role: Decides how many elements count as sharing the scale in LSQ's gradient scale.
        learn_scale: Whether the parameters require a gradient in the state "train".
        initial_scale: How `finish_calibration` chooses the scale.
        power_of_two: Whether the scale in use is the nearest power of two.
        stochastic_rounding: Whether training rounds stochastically.
        pass_through: Whether the gradient of the input ignores the range.
        generator: Where the seeds of stochastic rounding come from; None: PyTorch's own, which
            `torch.compile` takes without a graph break.
        scale: Parameter of shape `scale_shape`. What is in use is
            `torch.ops.qatx.learned_scale(scale)`, which no optimizer step can make zero, negative
            or NaN.
        zero_point: In codes, float32, shaped like `scale`; rounded where it is used. A parameter
            where the spec is asymmetric (in use is `torch.ops.qatx.learned_zero_point(zero_point)`,
            which is never NaN), otherwise a buffer.
        observed_min, observed_max: Buffers shaped like `scale`: the range seen in the state
            "calibrate".
        observed_mean: Buffer shaped like `scale`: the mean magnitude seen there, where
            `initial_scale` needs it.
        observed_count: Buffer shaped like `scale`, int64: the elements that the mean is of.
    """

    scale: nn.Parameter
    zero_point: Tensor
    observed_min: Tensor
    observed_max: Tensor
    observed_mean: Tensor
    observed_count: Tensor

    def __init__(
        self,
        spec: QuantSpec,
        *,
        role: Role,
        scale_shape: Sequence[int] = (),
        learn_scale: bool = True,
        initial_scale: InitialScale = "min_max",
        power_of_two: bool = False,
        stochastic_rounding: bool = False,
        pass_through: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        """Makes an uncalibrated module.

        Args:
            spec: How to quantize.
            role: "weight" or "activation" (whose first dimension is the batch).
            scale_shape: `()` where `spec.axis` is None, `(channels,)` where there is an axis, and
                `spec.scale_shape(x.shape)` where there are groups.
            learn_scale: Whether scale and zero point are trained.
            initial_scale: "min_max": the whole range that was seen. "lsq": the range that LSQ's
                initial scale, 2 * mean|x| / sqrt(quant_max), covers (arXiv 1902.08153), within
                that; better for 4 bits and less. It takes a range that has a side only, or a
                symmetric spec; otherwise it is "min_max".
            power_of_two: Use the power of two nearest to the scale (arXiv 1903.08066).
            stochastic_rounding: Round stochastically in training, to nearest in evaluation.
            pass_through: Let gradients of the input through outside the range too.
            device: Where the parameters live.

        Raises:
            ValueError: `role` or `initial_scale` is unknown, or `scale_shape` does not go with
                `spec`.
        """
        super().__init__()
        _check_choice("role", role, get_args(Role))
        _check_choice("initial_scale", initial_scale, get_args(InitialScale))
        self._check_spec(spec)
        shape = tuple(scale_shape)
        if spec.axis is None and shape:
            raise ValueError(
                f"FakeQuantize: scale_shape must be () (one scale for the tensor) for {spec}, "
                f"got {shape}"
            )
        if spec.axis is not None and (not shape or (spec.group_size is None and len(shape) != 1)):
            raise ValueError(
                "FakeQuantize: scale_shape must be "
                f"{'(channels,)' if spec.group_size is None else 'spec.scale_shape(x.shape)'} "
                f"for {spec}, got {shape}"
            )
        self.spec = spec
        self.role = role
        self.learn_scale = learn_scale
        self.initial_scale = initial_scale
        self.power_of_two = power_of_two
        self.stochastic_rounding = stochastic_rounding
        self.pass_through = pass_through
        self.generator: torch.Generator | None = None

        def empty() -> Tensor:
            return torch.empty(shape, dtype=torch.float32, device=device)

        self._make_parameters(empty)
        for name in ("observed_min", "observed_max", "observed_mean"):
            self.register_buffer(name, empty())
        count = torch.empty(shape, dtype=torch.int64, device=device)
        self.register_buffer("observed_count", count)
        self.reset_parameters()

    @property
    def state(self) -> State:
        """The state; the methods below change it."""
        return self._state

    @property
    def calibrated(self) -> bool:
        """Whether there are scales to quantize with."""
        return self._state in ("train", "frozen")

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Goes back to the state "uncalibrated", with nothing observed."""
        self._reset_qparams()
        self.observed_min.fill_(math.inf)
        self.observed_max.fill_(-math.inf)
        self.observed_mean.zero_()
        self.observed_count.zero_()
        self._set_state("uncalibrated")

    def begin_calibration(self) -> None:
        """Goes to the state "calibrate", with nothing observed."""
        self.reset_parameters()
        self._set_state("calibrate")

    @torch.no_grad()
    def finish_calibration(self) -> None:
        """Sets scale and zero point from the observed range and goes to the state "train".

        Raises:
            ValueError: A channel has no finite value among those observed. Nothing is changed.
        """
        seen = self.observed_min <= self.observed_max
        if not bool(seen.all()):
            kind = "channels" if self.spec.group_size is None else "groups"
            where = "" if seen.dim() == 0 else f" in {int((~seen).sum())} of {seen.numel()} {kind}"
            raise ValueError(f"no finite value was observed during calibration{where}")
        self._set_range(*self._initial_range())
        self._set_state("train")

    def freeze(self) -> None:
        """Goes to the state "frozen".

        Raises:
            RuntimeError: The module is not calibrated.
        """
        self._check_calibrated()
        self._set_state("frozen")

    def unfreeze(self) -> None:
        """Goes from "frozen" back to "train".

        Raises:
            RuntimeError: The module is not calibrated.
        """
        self._check_calibrated()
        self._set_state("train")

    def forward(self, x: Tensor) -> Tensor:
        """Quantizes and dequantizes.

        Args:
            x: Floating point, any shape. float64 takes a module that was converted to it
                (`module.double()`), all else one in float32.

        Returns:
            A tensor like `x` (in the state "calibrate": `x` itself).

        Raises:
            RuntimeError: The module is not calibrated.
            TypeError: `x` is of another dtype.
            ValueError: `x` has another number of channels than the module.
        """
        if self._state == "calibrate":
            self._observe(x.detach())
            return x
        self._check_calibrated()
        return self._quantize(x)

    # ---- what quantizers differ in -------------------------------------------------------------

    def _check_spec(self, spec: QuantSpec) -> None:
        """Raises ValueError where the quantizer does not do what `spec` says."""

    def _make_parameters(self, empty: Callable[[], Tensor]) -> None:
        self.scale = nn.Parameter(empty())
        if self.spec.symmetric:
            self.register_buffer("zero_point", empty())
        else:
            self.zero_point = nn.Parameter(empty())

    def _reset_qparams(self) -> None:
        self.scale.fill_(1.0)
        self.zero_point.zero_()

    def _set_range(self, low: Tensor, high: Tensor) -> None:
        """Sets scale and zero point from a range."""
        scale, zero_point = choose_qparams(low.cpu(), high.cpu(), self.spec)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def _quantize(self, x: Tensor) -> Tensor:
        zero_point = self.zero_point
        if not self.spec.symmetric:
            zero_point = torch.ops.qatx.learned_zero_point(zero_point)
        return self._fake_quantize(
            x, torch.ops.qatx.learned_scale(self.scale), zero_point, self._grad_scale(x)
        )

    # ---- shared --------------------------------------------------------------------------------

    def _fake_quantize(
        self, x: Tensor, scale: Tensor, zero_point: Tensor, grad_scale: float = 1.0
    ) -> Tensor:
        if self.power_of_two:
            scale = torch.ops.qatx.power_of_two_scale(scale)
        seed = None
        if self.stochastic_rounding and self.training:
            seed = torch.randint(2**62, (), generator=self.generator)
        y: Tensor = torch.ops.qatx.fake_quantize(
            x,
            scale,
            zero_point,
            self.spec.quant_min,
            self.spec.quant_max,
            self.spec.axis,
            grad_scale,
            group_size=self.spec.group_size,
            pass_through=self.pass_through,
            seed=seed,
        )
        return y

    def _grad_scale(self, x: Tensor) -> float:
        """LSQ's: scales move about as fast, relative to their size, as weights do."""
        if not self.training:
            return 1.0
        shape = x.shape if self.role == "weight" else x.shape[1:]  # the batch size must not matter
        elements = math.prod(shape) // self.scale.numel()
        return 1.0 / math.sqrt(max(elements, 1) * self.spec.quant_max)

    def _initial_range(self) -> tuple[Tensor, Tensor]:
        low, high = self.observed_min, self.observed_max
        positive = bool((low >= 0).all())
        if self.initial_scale == "min_max" or not (self.spec.symmetric or positive):
            return low, high
        shifted = self.spec.symmetric and not self.spec.signed
        middle = (self.spec.quant_max + 1) // 2 if shifted else 0
        extent = 2 * self.observed_mean * math.sqrt(self.spec.quant_max - middle)
        return torch.maximum(low, -extent), torch.minimum(high, extent)

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        if x.dtype != self.observed_min.dtype:
            if x.dtype == torch.float64 or not x.dtype.is_floating_point:
                raise TypeError(
                    f"FakeQuantize: the input must be {self.observed_min.dtype}, got {x.dtype}"
                )
            x = x.to(self.observed_min.dtype)
        if self.spec.scale_shape(x.shape) != self.scale_shape:
            raise ValueError(
                f"FakeQuantize: the input must have scales of shape {self.scale_shape} for "
                f"{self.spec}, got shape {tuple(x.shape)}"
            )
        if x.numel() == 0:
            return
        low, high = self._reduce(x, "amin"), self._reduce(x, "amax")
        if not bool((low.isfinite() & high.isfinite()).all()):
            finite = x.isfinite()
            low = self._reduce(torch.where(finite, x, math.inf), "amin")
            high = self._reduce(torch.where(finite, x, -math.inf), "amax")
            x = torch.where(finite, x, 0.0)
        torch.minimum(self.observed_min, low, out=self.observed_min)
        torch.maximum(self.observed_max, high, out=self.observed_max)
        if self.initial_scale == "lsq":
            count = self._reduce(torch.ones_like(x), "sum")
            self.observed_count += count.to(torch.int64)
            sums = self._reduce(x.abs(), "sum")
            self.observed_mean += (sums - count * self.observed_mean) / self.observed_count

    def _reduce(self, x: Tensor, how: str) -> Tensor:
        """Reduces to one element for each scale."""
        axis, group_size = self.spec.axis, self.spec.group_size
        if axis is None or group_size is None:
            kept = None if axis is None else axis % x.dim()
            result: Tensor = getattr(x, how)([d for d in range(x.dim()) if d != kept])
            return result
        groups = x.split(group_size, axis)
        return torch.cat([getattr(group, how)(axis, keepdim=True) for group in groups], axis)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The shape of the scales."""
        return tuple(self.observed_min.shape)

    def _check_calibrated(self) -> None:
        if not self.calibrated:
            raise RuntimeError(
                "FakeQuantize has no scale yet: call qatx.calibrate(model, data), or load the "
                "state dict of a calibrated model, before the model is trained or evaluated"
            )

    def _set_state(self, state: State) -> None:
        self._state: State = state
        for parameter in self.parameters():
            parameter.requires_grad_(self.learn_scale and state != "frozen")
            if not parameter.requires_grad:
                parameter.grad = None  # or an optimizer would go on with it

    # A tensor, because some formats of state dicts hold nothing else.
    def get_extra_state(self) -> Tensor:
        """The state, for `state_dict`."""
        return torch.tensor(_STATES.index(self._state), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes the state from a state dict."""
        index = int(state)
        if index >= len(_STATES):
            raise ValueError(f"FakeQuantize: the state dict holds the unknown state {index}")
        self._set_state(_STATES[index])

    def extra_repr(self) -> str:
        """The spec, the role and the state."""
        options = "".join(
            f", {name}=True"
            for name in ("power_of_two", "stochastic_rounding", "pass_through")
            if getattr(self, name)
        )
        return (
            f"{self.spec}, role={self.role}, learn_scale={self.learn_scale}{options}, "
            f"state={self._state}"
        )


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"FakeQuantize: {name} must be one of {choices}, got {value!r}")
