"""How a model is quantized."""

from __future__ import annotations

from dataclasses import dataclass

from qatx._C import QuantSpec

_WEIGHT = QuantSpec(bits=8, signed=True, symmetric=True, axis=0)
_ACTIVATION = QuantSpec(bits=8, signed=False, symmetric=False)


@dataclass(frozen=True, kw_only=True)
class QConfig:
    """What `qatx.prepare` and the modules of `qatx.nn` quantize with.

    Attributes:
        weight: Weights of convolutions and linear layers. `axis` is 0 (a scale for each output
            channel; the default) or None (one for the tensor). Signed and symmetric by default,
            because a zero point of 0 keeps the integer product free of correction terms.
        activation: Values between layers; per tensor (`axis=None`), because a layer sums over its
            input channels in integers. Unsigned and asymmetric by default: after a ReLU no code is
            spent on negative numbers.
        learn_scale: Scales (and the zero points of asymmetric specs) are trained with the weights
            (LSQ, LSQ+); otherwise calibration fixes them.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: An axis is not one of those above.
    """

    weight: QuantSpec = _WEIGHT
    activation: QuantSpec = _ACTIVATION
    learn_scale: bool = True

    def __post_init__(self) -> None:
        for name, spec, axes in (
            ("weight", self.weight, (0, None)),
            ("activation", self.activation, (None,)),
        ):
            if not isinstance(spec, QuantSpec):
                raise TypeError(f"QConfig: {name} must be a QuantSpec, got {spec!r}")
            if spec.axis not in axes:
                allowed = " or ".join(map(str, axes))
                raise ValueError(f"QConfig: {name}.axis must be {allowed}, got {spec.axis}")
        if not isinstance(self.learn_scale, bool):
            raise TypeError(f"QConfig: learn_scale must be a bool, got {self.learn_scale!r}")
