"""Modules that train with quantized values; `qatx.prepare` puts them in."""

from qatx.nn.add import Add
from qatx.nn.attention import ScaledDotProductAttention
from qatx.nn.conv import Conv1d, Conv2d, ConvBn2d, ConvTranspose2d
from qatx.nn.fake_quantize import FakeQuantize
from qatx.nn.linear import Linear
from qatx.nn.quantizers import PACT, DoReFa, MovingAverage

__all__ = [
    "PACT",
    "Add",
    "Conv1d",
    "Conv2d",
    "ConvBn2d",
    "ConvTranspose2d",
    "DoReFa",
    "FakeQuantize",
    "Linear",
    "MovingAverage",
    "ScaledDotProductAttention",
]
