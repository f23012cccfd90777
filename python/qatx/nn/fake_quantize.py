"""Fake quantization with a learned scale, as a module."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from qatx._C import Observer, QuantSpec, choose_qparams
from qatx._ranges import RangeChoice, RangeMethod, check_range_method

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
        range_method: How `finish_calibration` chooses the range, where it is not told otherwise.
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
        observer: What an activation was seen to be, in the state "calibrate" (which `state_dict`
            then carries); otherwise None.
        last_weight: The weight that was seen last, in the state "calibrate", whose range is wanted;
            otherwise, and for activations, None.
    """

    scale: nn.Parameter
    zero_point: Tensor
    observer: Observer | None
    last_weight: Tensor | None

    def __init__(
        self,
        spec: QuantSpec,
        *,
        role: Role,
        scale_shape: Sequence[int] = (),
        learn_scale: bool = True,
        range_method: RangeMethod = "min_max",
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
            range_method: "min_max" (the whole range that was seen), "moving_average",
                "percentile", "mse", "kl", "lsq" (the range that LSQ's initial scale covers,
                better for 4 bits and less) or "best"; docs/calibration.md has them all.
            power_of_two: Use the power of two nearest to the scale (arXiv 1903.08066).
            stochastic_rounding: Round stochastically in training, to nearest in evaluation.
            pass_through: Let gradients of the input through outside the range too.
            device: Where the parameters live.

        Raises:
            ValueError: `role` or `range_method` is unknown, or `scale_shape` does not go with
                `spec`.
        """
        super().__init__()
        _check_choice("role", role, get_args(Role))
        check_range_method("FakeQuantize", "range_method", range_method)
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
        self.range_method = range_method
        self.power_of_two = power_of_two
        self.stochastic_rounding = stochastic_rounding
        self.pass_through = pass_through
        self.generator: torch.Generator | None = None

        def empty() -> Tensor:
            return torch.empty(shape, dtype=torch.float32, device=device)

        self._scale_shape = shape
        self._make_parameters(empty)
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
        self._set_state("uncalibrated")

    def begin_calibration(self) -> None:
        """Goes to the state "calibrate", with nothing observed."""
        self.reset_parameters()
        self._set_state("calibrate")

    @torch.no_grad()
    def finish_calibration(
        self,
        method: RangeMethod | None = None,
        *,
        percentile: float = 99.99,
        norm: float = 2.0,
    ) -> RangeChoice:
        """Sets scale and zero point from what was seen and goes to the state "train".

        Args:
            method: How to choose the range; None: `range_method`.
            percentile: Of "percentile"; more than 50, at most 100.
            norm: The power of the error that "mse" minimizes; 1 to 10.

        Returns:
            The range that was chosen, and what it is expected to cost.

        Raises:
            ValueError: A channel has no finite value among those observed, or an argument is out
                of range. Nothing is changed.
        """
        method = self.range_method if method is None else method
        options = {"percentile": percentile, "norm": norm}
        if self.last_weight is not None:
            weight = self.last_weight.cpu()
            choice = RangeChoice(*Observer.choose_for(weight, self.spec, method, **options))
        else:
            observer = self.observer or Observer(self.spec, self.scale_shape, 16)
            choice = RangeChoice(*observer.choose(self.spec, method, **options))
        self._set_range(choice.low, choice.high)
        self._set_state("train")
        return choice

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
        dtype = self.scale.dtype
        scale, zero_point = choose_qparams(low.to(dtype), high.to(dtype), self.spec)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def _qparams(self) -> tuple[Tensor, Tensor]:
        """The scale and the zero point that are in use, the latter not rounded yet.

        NotImplementedError where the codes do not come from these.
        """
        zero_point = self.zero_point
        if not self.spec.symmetric:
            zero_point = torch.ops.qatx.learned_zero_point(zero_point)
        scale = torch.ops.qatx.learned_scale(self.scale)
        if self.power_of_two:
            scale = torch.ops.qatx.power_of_two_scale(scale)
        return scale, zero_point

    def _quantize(self, x: Tensor) -> Tensor:
        return self._fake_quantize(x, *self._qparams(), self._grad_scale(x))

    # ---- shared --------------------------------------------------------------------------------

    def _fake_quantize(
        self, x: Tensor, scale: Tensor, zero_point: Tensor, grad_scale: float = 1.0
    ) -> Tensor:
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

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        own = next(itertools.chain(self.parameters(), self.buffers()), None)
        is_wider = x.dtype == torch.float64 and own is not None and own.dtype != torch.float64
        if is_wider or not x.dtype.is_floating_point:
            raise TypeError(
                f"FakeQuantize: the input must be {'float' if own is None else own.dtype}, "
                f"got {x.dtype}"
            )
        if self.spec.scale_shape(x.shape) != self.scale_shape:
            raise ValueError(
                f"FakeQuantize: the input must have scales of shape {self.scale_shape} for "
                f"{self.spec}, got shape {tuple(x.shape)}"
            )
        if self.observer is None:
            self.last_weight = x
        else:
            self.observer.observe(x.cpu())

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The shape of the scales."""
        return self._scale_shape

    def _check_calibrated(self) -> None:
        if not self.calibrated:
            raise RuntimeError(
                "FakeQuantize has no scale yet: call qatx.calibrate(model, data), or load the "
                "state dict of a calibrated model, before the model is trained or evaluated"
            )

    def _set_state(self, state: State) -> None:
        self._state: State = state
        # What is needed in one state only is there in that state only.
        self.last_weight = None
        observes = state == "calibrate" and self.role == "activation"
        self.observer = Observer(self.spec, self.scale_shape) if observes else None
        for parameter in self.parameters():
            parameter.requires_grad_(self.learn_scale and state != "frozen")
            if not parameter.requires_grad:
                parameter.grad = None  # or an optimizer would go on with it

    # A tensor, because some formats of state dicts hold nothing else.
    def get_extra_state(self) -> Tensor:
        """The state, for `state_dict`; with what was observed, as bytes, while calibrating."""
        state = torch.tensor(_STATES.index(self._state), dtype=torch.uint8)
        if self.observer is None:
            return state
        return torch.cat([state.reshape(1), self.observer.state.flatten().view(torch.uint8)])

    def set_extra_state(self, state: Tensor) -> None:
        """Takes the state from a state dict."""
        content = state.cpu().flatten()
        index = int(content[0])
        if index >= len(_STATES):
            raise ValueError(f"FakeQuantize: the state dict holds the unknown state {index}")
        self._set_state(_STATES[index])
        if self.observer is not None:
            words = content[1:].clone()  # aligned
            shape = self.observer.state.shape
            if words.numel() != 8 * shape.numel():
                raise ValueError(
                    f"FakeQuantize: the state dict must hold {8 * shape.numel()} observed bytes, "
                    f"got {words.numel()}"
                )
            self.observer.state = words.view(torch.int64).reshape(shape)

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
