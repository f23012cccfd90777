"""Quantized addition."""

from __future__ import annotations

from torch import Tensor

from qatx.nn._layer import Device, QuantizedLayer, Relu
from qatx.qconfig import QConfig


class Add(QuantizedLayer):
    """`a + b`, then an optional ReLU, then a quantized output.

    One operand may be the output of a convolution or linear layer that is not quantized: the
        converter then adds inside
    that layer, before its one rounding. The other should be quantized already.

    Args:
        qconfig: How to quantize; None for `QConfig()`.
        relu: False, True or "relu6".
        quantize_output: Whether the output is quantized.
        device: Where the parameters live.
    """

    def __init__(
        self,
        *,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
        device: Device = None,
    ) -> None:
        super().__init__()
        self._init_output(qconfig or QConfig(), relu, quantize_output, device)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Takes two float32 tensors of one shape and returns their sum."""
        return self._finish(a + b)

    def extra_repr(self) -> str:
        """The ReLU."""
        return self._relu_repr()
