"""The quantizer that a `QConfig` asks for."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qatx._C import QuantSpec
from qatx._ranges import RangeMethod
from qatx.nn.fake_quantize import FakeQuantize, Role
from qatx.nn.quantizers import PACT, DoReFa, MovingAverage
from qatx.qconfig import QConfig

_LSQ_BITS = 4  # up to here, a range that clips is the better start


def weight_fake_quantize(
    qconfig: QConfig, shape: Sequence[int], device: torch.device | str | None
) -> FakeQuantize:
    """What quantizes a weight of this shape."""
    spec = qconfig.weight
    scale_shape = spec.scale_shape(shape)
    return _make(
        qconfig, spec, qconfig.weight_quantizer, "weight", qconfig.weight_range, scale_shape, device
    )


def activation_fake_quantize(
    qconfig: QConfig,
    device: torch.device | str | None = None,
    *,
    positive: bool = False,
    symmetric: bool = False,
) -> FakeQuantize:
    """What quantizes one value between layers.

    `positive`: it is the output of a ReLU. `symmetric`: it takes the place of a weight.
    """
    spec = qconfig.activation
    quantizer = qconfig.activation_quantizer
    if symmetric:
        spec = QuantSpec(bits=spec.bits, signed=True, symmetric=True)
    if quantizer == "pact" and (symmetric or not positive):
        quantizer = "lsq"
    return _make(
        qconfig,
        spec,
        quantizer,
        "activation",
        qconfig.activation_range,
        (),
        device,
    )


_CLASSES = {"moving_average": MovingAverage, "dorefa": DoReFa, "pact": PACT}


def _make(
    qconfig: QConfig,
    spec: QuantSpec,
    quantizer: str,
    role: Role,
    range_method: RangeMethod | None,
    scale_shape: tuple[int, ...],
    device: torch.device | str | None,
) -> FakeQuantize:
    default: RangeMethod = "lsq" if spec.bits <= _LSQ_BITS else "min_max"
    is_lsq = quantizer not in _CLASSES
    return _CLASSES.get(quantizer, FakeQuantize)(
        spec,
        role=role,
        scale_shape=scale_shape,
        learn_scale=quantizer != "fixed",
        range_method=range_method or default,
        power_of_two=qconfig.power_of_two and is_lsq,
        stochastic_rounding=qconfig.stochastic_rounding and is_lsq,
        device=device,
    )
