"""What the layers of `qatx.nn` share: quantized weights, an optional ReLU, a quantized output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

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
    """Mixed into a subclass of a layer of `torch.nn` that has a weight.

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


class ProductLayer(WeightedLayer):
    """A layer whose outputs are sums of products: mixed into a convolution or `nn.Linear`."""

    weight: Any  # as torch's layers declare them, which is not all alike
    bias: Any

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's linear operation, with a weight whose output channels come first."""
        raise NotImplementedError

    def _run_deployed(self, x: Tensor) -> Tensor:
        """What evaluation computes."""
        weight = self.weight_fake_quantize(self._deployed_weight())
        return self._finish(self._multiply(x, weight, self._deployed_bias()))

    # What is deployed: one weight, which `weight_fake_quantize` takes, and one bias. Subclasses
    # whose parameters are something else say here how they relate.

    def _deployed_weight(self) -> Tensor:
        """The weight before quantization, output channels first."""
        weight: Tensor = self.weight
        return weight

    def _deployed_bias(self) -> Tensor | None:
        bias: Tensor | None = self.bias
        return bias

    @torch.no_grad()
    def _set_deployed_weight(self, weight: Tensor) -> None:
        self.weight.copy_(weight)

    @torch.no_grad()
    def _add_to_bias(self, change: Tensor) -> None:
        """Adds to the deployed bias; a layer without a bias gets one."""
        if self.bias is None:
            self.bias = nn.Parameter(torch.zeros_like(change))
        self.bias += change
