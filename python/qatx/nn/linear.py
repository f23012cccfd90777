"""Quantized linear layer."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from qatx._C import QuantSpec
from qatx.nn._layer import Device, ProductLayer, Relu
from qatx.qconfig import QConfig


class Linear(nn.Linear, ProductLayer):
    """`torch.nn.Linear` with a quantized weight, then an optional ReLU, then a quantized output.

    Takes float32 `[..., in_features]`, whose values should be quantized already, by the layer that
    made them or by a `FakeQuantize`; but with `activation_quantizer="dynamic"` the layer quantizes
    each row that it reads itself (`torch.ops.qatx.dynamic_fake_quantize`).

    Args:
        in_features, out_features, bias, device: As in `torch.nn.Linear`.
        qconfig: How to quantize; None for `QConfig()`.
        relu: False, True or "relu6".
        quantize_output: Whether the output is quantized.

    Attributes:
        dynamic_quant_max: The last code of the rows that the layer quantizes itself; None where it
            does not.
    """

    dynamic_quant_max: int | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: Device = None,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias, device=device)
        qconfig = qconfig or QConfig()
        self.dynamic_quant_max = _dynamic_quant_max(qconfig)
        self._init_weight(qconfig, self.weight.shape, device)
        self._init_output(qconfig, relu, quantize_output, device)

    @classmethod
    def from_float(
        cls,
        linear: nn.Linear,
        *,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> Self:
        """Makes the quantized twin of a float layer: a copy, on its device, in its mode.

        Raises:
            ValueError: `linear` is not float32.
        """
        return cls._adopt(copy.deepcopy(linear), qconfig, relu, quantize_output)

    @classmethod
    def _adopt(
        cls,
        linear: nn.Linear,
        qconfig: QConfig | None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> Self:
        """`from_float` that takes the parameters themselves, so that tied weights stay tied."""
        module = cls(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            device="meta",
            qconfig=qconfig,
            relu=relu,
            quantize_output=quantize_output,
        )
        return module._take_over(linear)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Returns float32 `[..., out_features]`."""
        return self._run_deployed(input)

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self._factor_of(x), weight, bias)

    def _factor_of(self, x: Tensor) -> Tensor:
        """What of an input is multiplied with the weight."""
        if self.dynamic_quant_max is None:
            return x
        y: Tensor
        y, _ = torch.ops.qatx.dynamic_fake_quantize(x, self.dynamic_quant_max)
        return y

    def extra_repr(self) -> str:
        """Torch's, the ReLU, and whether the input is quantized by row."""
        dynamic = "" if self.dynamic_quant_max is None else ", dynamic=True"
        return f"{super().extra_repr()}, {self._relu_repr()}{dynamic}"


def _dynamic_quant_max(qconfig: QConfig) -> int | None:
    if qconfig.activation_quantizer != "dynamic":
        return None
    return QuantSpec(bits=qconfig.activation.bits, signed=True, symmetric=True).quant_max
