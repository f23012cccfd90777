"""What the layers of `qatx.nn` share: quantized weights, an optional ReLU, a quantized output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from qatx.nn._make import activation_fake_quantize, weight_fake_quantize
from qatx.nn.fake_quantize import FakeQuantize
from qatx.qconfig import QConfig

Relu: TypeAlias = bool | Literal["relu6"]
Device: TypeAlias = torch.device | str | None


class QuantizedLayer(nn.Module):
    """What follows the arithmetic of a layer.

    Attributes:
        relu: False, True or "relu6": what is applied to the result.
        output_fake_quantize: Quantizes the result, after the ReLU; None leaves it in float, for a
            consumer that is not an integer operator or for an `Add` that is fused with the layer.
    """

    relu: Relu
    output_fake_quantize: FakeQuantize | None

    def _init_output(
        self, qconfig: QConfig, relu: Relu, quantize_output: bool, device: Device
    ) -> None:
        if relu not in (False, True, "relu6"):
            raise ValueError(
                f'{type(self).__name__}: relu must be False, True or "relu6", got {relu!r}'
            )
        self.relu = relu
        self.output_fake_quantize = (
            activation_fake_quantize(qconfig, device, positive=bool(relu))
            if quantize_output
            else None
        )

    def _finish(self, y: Tensor) -> Tensor:
        if self.relu:
            y = F.relu6(y) if self.relu == "relu6" else F.relu(y)
        return y if self.output_fake_quantize is None else self.output_fake_quantize(y)

    def _relu_repr(self) -> str:
        return f"relu={self.relu!r}"


class WeightedLayer(QuantizedLayer):
    """Mixed into a subclass of a convolution of `torch.nn` or of `nn.Linear`.

    Attributes:
        weight_fake_quantize: Quantizes the weight that the layer multiplies with.
    """

    weight_fake_quantize: FakeQuantize

    def _init_weight(self, qconfig: QConfig, shape: Sequence[int], device: Device) -> None:
        self.weight_fake_quantize = weight_fake_quantize(qconfig, shape, device)

    def _take_over(self, source: nn.Module) -> Self:
        """Gives a layer made on the meta device the parameters, device and mode of `source`."""
        weight = source.get_parameter("weight")
        if weight.dtype != torch.float32:
            raise ValueError(
                f"{type(self).__name__}: the weight must be float32, got {weight.dtype}"
            )
        self.to_empty(device=weight.device)
        for module in self.modules():
            if isinstance(module, FakeQuantize):
                module.reset_parameters()
        for name, parameter in source.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        return self.train(source.training)
