"""Fake quantization with a learned scale, as a module."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from qatx._C import QuantSpec, choose_qparams

Role: TypeAlias = Literal["weight", "activation"]
State: TypeAlias = Literal["uncalibrated", "calibrate", "train", "frozen"]
_STATES: tuple[State, ...] = get_args(State)


class FakeQuantize(nn.Module):
    """Rounds a tensor to the values that its integer codes stand for.

    It is always in one of four states, which `state_dict` carries:

    * `"uncalibrated"`: there is no scale yet; calling the module is an error.
    * `"calibrate"`: passes its input through and keeps the smallest and the largest finite value
      seen.
    * `"train"`: quantizes; scale and zero point are learned.
    * `"frozen"`: quantizes; scale and zero point stay.

    Nothing but the state "calibrate" and an optimizer ever changes a scale, in training or in
    evaluation mode. All parameters and buffers have their final shape from construction, so that an
    optimizer may be made and a state dict loaded at any time.

    Attributes:
        spec: Bits, sign, symmetry and axis.
        role: Decides how many elements count as sharing the scale in LSQ's gradient scale.
        learn_scale: Whether the parameters require a gradient in the state "train".
        scale: Parameter of shape `[]`, or `[channels]`. What is in use is
            `torch.ops.qatx.learned_scale(scale)`, which no optimizer step can make zero, negative
            or NaN.
        zero_point: In codes, float32, shaped like `scale`; rounded where it is used. A parameter
            where the spec is asymmetric, otherwise a buffer.
        observed_min, observed_max: Buffers shaped like `scale`: the range seen in the state
            "calibrate".
    """

    scale: nn.Parameter
    zero_point: Tensor
    observed_min: Tensor
    observed_max: Tensor

    def __init__(
        self,
        spec: QuantSpec,
        *,
        role: Role,
        channels: int | None = None,
        learn_scale: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        """Makes an uncalibrated module.

        Args:
            spec: How to quantize.
            role: "weight" or "activation" (whose first dimension is the batch).
            channels: Size of dimension `spec.axis`; None where that is None.
            learn_scale: Whether scale and zero point are trained.
            device: Where the parameters live.

        Raises:
            ValueError: `role` is unknown, or `channels` does not go with `spec.axis`.
        """
        super().__init__()
        if role not in get_args(Role):
            raise ValueError(f"FakeQuantize: role must be one of {get_args(Role)}, got {role!r}")
        if (channels is None) != (spec.axis is None):
            needed = "None (one scale for the tensor)" if spec.axis is None else "a number"
            raise ValueError(f"FakeQuantize: channels must be {needed} for {spec}, got {channels}")
        self.spec = spec
        self.role = role
        self.learn_scale = learn_scale

        def empty() -> Tensor:
            return torch.empty(() if channels is None else (channels,), device=device)

        self.scale = nn.Parameter(empty())
        if spec.symmetric:
            self.register_buffer("zero_point", empty())
        else:
            self.zero_point = nn.Parameter(empty())
        self.register_buffer("observed_min", empty())
        self.register_buffer("observed_max", empty())
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
        self.scale.fill_(1.0)
        self.zero_point.zero_()
        self.observed_min.fill_(math.inf)
        self.observed_max.fill_(-math.inf)
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
            where = "" if seen.dim() == 0 else f" in {int((~seen).sum())} of {len(seen)} channels"
            raise ValueError(f"no finite value was observed during calibration{where}")
        scale, zero_point = choose_qparams(
            self.observed_min.cpu(), self.observed_max.cpu(), self.spec
        )
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
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
            x: float32, any shape.

        Returns:
            A tensor like `x` (in the state "calibrate": `x` itself).

        Raises:
            RuntimeError: The module is not calibrated.
            TypeError: `x` is not float32.
            ValueError: `x` has another number of channels than the module.
        """
        if self._state == "calibrate":
            self._observe(x.detach())
            return x
        self._check_calibrated()
        y: Tensor = torch.ops.qatx.fake_quantize(
            x,
            torch.ops.qatx.learned_scale(self.scale),
            self.zero_point,
            self.spec.quant_min,
            self.spec.quant_max,
            self.spec.axis,
            self._grad_scale(x) if self.training else 1.0,
        )
        return y

    def _grad_scale(self, x: Tensor) -> float:
        """LSQ's: scales move about as fast, relative to their size, as weights do."""
        shape = x.shape if self.role == "weight" else x.shape[1:]  # the batch size must not matter
        elements = math.prod(shape) // self.scale.numel()
        return 1.0 / math.sqrt(max(elements, 1) * self.spec.quant_max)

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        if x.dtype != torch.float32:
            raise TypeError(f"FakeQuantize: the input must be float32, got {x.dtype}")
        channels = () if self.spec.axis is None else (x.size(self.spec.axis),)
        if channels != self.scale.shape:
            raise ValueError(
                f"FakeQuantize: the input must have {len(self.scale)} channels in dimension "
                f"{self.spec.axis}, got shape {tuple(x.shape)}"
            )
        if x.numel() == 0:
            return
        axis = None if self.spec.axis is None else self.spec.axis % x.dim()
        dims = [d for d in range(x.dim()) if d != axis]
        low, high = x.amin(dims), x.amax(dims)
        if not bool((low.isfinite() & high.isfinite()).all()):
            low = torch.where(x.isfinite(), x, math.inf).amin(dims)
            high = torch.where(x.isfinite(), x, -math.inf).amax(dims)
        torch.minimum(self.observed_min, low, out=self.observed_min)
        torch.maximum(self.observed_max, high, out=self.observed_max)

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
        return f"{self.spec}, role={self.role}, learn_scale={self.learn_scale}, state={self._state}"
