"""A layer's linear operation as a product of matrices, `[groups, outputs, inputs]` by rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qatx.nn._layer import ProductLayer
from qatx.nn.linear import Linear

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_Transposed: TypeAlias = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | _Transposed

_AT_ONCE = 2**24  # elements


def weight_matrix(layer: ProductLayer, weight: Tensor) -> Tensor:
    """A weight with its output channels first, as a matrix for each group of the convolution."""
    groups = getattr(layer, "groups", 1)
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def rows_of(layer: ProductLayer, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What each element of a layer's output is a weighted sum of, beside that element.

    Args:
        layer: The layer.
        x: Its input.
        y: Its output, or something of that shape.

    Yields:
        `[n, groups, inputs, rows]` and `[n, groups, outputs, rows]` of some samples at a time.
    """
    if isinstance(layer, Linear):
        x = layer._factor_of(x)
        yield x.reshape(-1, 1, x.shape[-1], 1), y.reshape(-1, 1, y.shape[-1], 1)
        return
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED))
    spatial = len(layer.kernel_size)
    if x.dim() == spatial + 1:  # no batch
        x, y = x[None], y[None]
    groups, taps = layer.groups, torch.Size(layer.kernel_size).numel()
    positions = y[0, 0].numel()
    step = max(1, _AT_ONCE // max(1, x.shape[1] * taps * positions))
    for inputs, outputs in zip(x.split(step), y.split(step), strict=True):
        n = len(inputs)
        patches = _unfold(layer, inputs)
        yield (
            patches.reshape(n, groups, -1, positions),
            outputs.reshape(n, groups, -1, positions),
        )


def _unfold(layer: _Convolution, x: Tensor) -> Tensor:
    """Patches `[N, channels * taps, positions]`, in the order of the weight's elements."""
    if isinstance(layer, _TRANSPOSED):
        return _unfold_transposed(layer, x)
    return _windows(layer, F.pad(x, layer._reversed_padding_repeated_twice), layer.stride)


def _windows(layer: _Convolution, x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """What a layer's kernel covers of images that hold their padding."""
    if len(stride) == 2:
        return F.unfold(x, layer.kernel_size, layer.dilation, stride=stride)
    spatial = len(stride)
    for d in range(spatial):
        span = layer.dilation[d] * (layer.kernel_size[d] - 1) + 1
        x = x.unfold(2 + d, span, stride[d])  # the window's elements come last
        taps = torch.arange(0, span, layer.dilation[d], device=x.device)
        x = x.index_select(-1, taps)
    windows, places = range(2 + spatial, 2 + 2 * spatial), range(2, 2 + spatial)
    return x.permute(0, 1, *windows, *places).flatten(2 + spatial).flatten(1, 1 + spatial)


def _unfold_transposed(layer: _Transposed, x: Tensor) -> Tensor:
    """It convolves its input, spread out with zeros in between, with its weight turned around."""
    n, channels = x.shape[:2]
    spread = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], layer.stride, strict=True)]
    wide = x.new_zeros(n, channels, *spread)
    strided = tuple(slice(None, None, step) for step in layer.stride)
    wide[(slice(None), slice(None), *strided)] = x
    padding: list[int] = []
    for d in reversed(range(len(spread))):  # F.pad begins with the last dimension
        reach = layer.dilation[d] * (layer.kernel_size[d] - 1) - int(layer.padding[d])
        padding += [reach, reach + layer.output_padding[d]]
    patches = _windows(layer, F.pad(wide, padding), (1,) * len(spread))
    taps = patches.shape[1] // channels
    return patches.view(n, channels, taps, -1).flip(2).flatten(1, 2)
