"""How a model is quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from qatx._C import QuantSpec
from qatx._ranges import RangeMethod, check_range_method

WeightQuantizer: TypeAlias = Literal["lsq", "fixed", "moving_average", "dorefa"]
ActivationQuantizer: TypeAlias = Literal["lsq", "fixed", "moving_average", "pact", "dynamic"]

_WEIGHT = QuantSpec(bits=8, signed=True, symmetric=True, axis=0)
_ACTIVATION = QuantSpec(bits=8, signed=False, symmetric=False)


@dataclass(frozen=True, kw_only=True)
class QConfig:
    """What `qatx.prepare` and the modules of `qatx.nn` quantize with.

    Attributes:
        weight: Weights of convolutions and linear layers. `axis` is 0 (a scale for each output
            channel; the default) or None (one for the tensor), or 1 with a `group_size` (along the
            input channels). Signed and symmetric by default, because a zero point of 0 keeps the
            integer product free of correction terms.
        activation: Values between layers; per tensor (`axis=None`), because a layer sums over its
            input channels in integers. Unsigned and asymmetric by default: after a ReLU no code is
            spent on negative numbers.
        weight_quantizer: "lsq": scales (and the zero points of asymmetric specs, LSQ+) are trained
            with the weights. "fixed": calibration fixes them. "moving_average": the range of the
            weight in each step. "dorefa": tanh and codes without a zero.
        activation_quantizer: "lsq" and "fixed" as above. "moving_average": a moving average of the
            range. "pact": a learned clipping point behind a ReLU or ReLU6, "lsq" elsewhere.
            "dynamic": linear layers quantize each row (token) that they read by its own range,
            which is found when it is there: symmetrically, with the bits of `activation`. What has
            no weight stays float in `qatx.prepare`, unless a convolution reads it; "lsq" elsewhere.
        weight_range: How calibration chooses the range of weights: "min_max", "moving_average",
            "percentile", "mse", "kl", "lsq" or "best", see docs/calibration.md; None: "lsq" for 4
            bits and less, otherwise "min_max".
        activation_range: The same for activations, where `qatx.calibrate` is not told otherwise.
        power_of_two: The scales of "lsq" and "fixed" are powers of two.
        stochastic_rounding: "lsq" and "fixed" round stochastically in training.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: An axis or a quantizer is not one of those above.
    """

    weight: QuantSpec = _WEIGHT
    activation: QuantSpec = _ACTIVATION
    weight_quantizer: WeightQuantizer = "lsq"
    activation_quantizer: ActivationQuantizer = "lsq"
    weight_range: RangeMethod | None = None
    activation_range: RangeMethod | None = None
    power_of_two: bool = False
    stochastic_rounding: bool = False

    def __post_init__(self) -> None:
        for name in ("weight", "activation"):
            if not isinstance(getattr(self, name), QuantSpec):
                raise TypeError(f"QConfig: {name} must be a QuantSpec, got {getattr(self, name)!r}")
        if self.weight.group_size is not None and self.weight.axis != 1:
            raise ValueError(
                f"QConfig: weight.axis must be 1 with a group_size, got {self.weight.axis}"
            )
        if self.weight.group_size is None and self.weight.axis not in (0, None):
            raise ValueError(f"QConfig: weight.axis must be 0 or None, got {self.weight.axis}")
        if self.activation.axis is not None:
            raise ValueError(f"QConfig: activation.axis must be None, got {self.activation.axis}")
        for name, choices in (
            ("weight_quantizer", get_args(WeightQuantizer)),
            ("activation_quantizer", get_args(ActivationQuantizer)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"QConfig: {name} must be one of {choices}, got {getattr(self, name)!r}"
                )
        for name in ("weight_range", "activation_range"):
            if getattr(self, name) is not None:
                check_range_method("QConfig", name, getattr(self, name))
        for name in ("power_of_two", "stochastic_rounding"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"QConfig: {name} must be a bool, got {getattr(self, name)!r}")
