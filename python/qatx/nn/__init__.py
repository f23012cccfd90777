"""Modules that train with quantized values; `qatx.prepare` puts them in."""

from qatx.nn.add import Add
from qatx.nn.attention import ScaledDotProductAttention
from qatx.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from qatx.nn.conv_bn import (
    ConvBn1d,
    ConvBn2d,
    ConvBn3d,
    ConvTransposeBn1d,
    ConvTransposeBn2d,
    ConvTransposeBn3d,
)
from qatx.nn.embedding import Embedding, EmbeddingBag
from qatx.nn.fake_quantize import FakeQuantize
from qatx.nn.linear import Linear
from qatx.nn.quantizers import PACT, DoReFa, MovingAverage

__all__ = [
    "PACT",
    "Add",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvBn1d",
    "ConvBn2d",
    "ConvBn3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "ConvTransposeBn1d",
    "ConvTransposeBn2d",
    "ConvTransposeBn3d",
    "DoReFa",
    "Embedding",
    "EmbeddingBag",
    "FakeQuantize",
    "Linear",
    "MovingAverage",
    "ScaledDotProductAttention",
]
