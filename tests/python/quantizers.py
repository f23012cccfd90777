"""A module of every kind that `qatx.nn` has for quantizing, for tests that hold for all of them."""

from collections.abc import Callable
from typing import Any

import torch
from qatx import QuantSpec
from qatx.nn import PACT, DoReFa, FakeQuantize, MovingAverage
from torch import Tensor

ACTIVATION = QuantSpec(bits=4, signed=False, symmetric=False)
WEIGHT = QuantSpec(bits=4, axis=0)
GROUPS = QuantSpec(bits=4, axis=1, group_size=16)
SHAPE = (3, 50)  # of what all of them take


def _activation(kind: type[FakeQuantize], **options: Any) -> Callable[[], FakeQuantize]:
    return lambda: kind(ACTIVATION, role="activation", **options)


def _weight(kind: type[FakeQuantize], spec: QuantSpec = WEIGHT) -> Callable[[], FakeQuantize]:
    return lambda: kind(spec, role="weight", scale_shape=spec.scale_shape(SHAPE))


MAKERS: dict[str, Callable[[], FakeQuantize]] = {
    "lsq": _activation(FakeQuantize),
    "lsq_weight": _weight(FakeQuantize),
    "groups": _weight(FakeQuantize, GROUPS),
    "fixed": _activation(FakeQuantize, learn_scale=False),
    "power_of_two": _activation(FakeQuantize, power_of_two=True),
    "pass_through": _activation(FakeQuantize, pass_through=True),
    "stochastic": _activation(FakeQuantize, stochastic_rounding=True),
    "pact": _activation(PACT),
    "moving_average": _activation(MovingAverage),
    "moving_average_weight": _weight(MovingAverage),
    "dorefa": _weight(DoReFa),
}


def calibrated(module: FakeQuantize, *values: Tensor) -> FakeQuantize:
    """The module in the state "train", by default with a range around a normal distribution's."""
    module.begin_calibration()
    for value in values or (torch.linspace(-2, 2, 150).reshape(SHAPE),):
        module(value)
    module.finish_calibration()
    return module
