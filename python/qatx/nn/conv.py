"""Quantized convolutions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.common_types import _size_1_t, _size_2_t, _size_3_t
from typing_extensions import Self

from qatx.nn._layer import Device, ProductLayer, Relu
from qatx.qconfig import QConfig

_Float: TypeAlias = (
    nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
)
_ARGUMENTS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
)


class _Conv(ProductLayer):
    """What all convolutions have in common."""

    _arguments: tuple[str, ...] = _ARGUMENTS

    @classmethod
    def from_float(
        cls,
        conv: _Float,
        *,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> Self:
        """Makes the quantized twin of a float layer: a copy, on its device, in its mode.

        Raises:
            ValueError: `conv` pads with something else than zeros, or is not float32.
        """
        return cls._adopt(copy.deepcopy(conv), qconfig, relu, quantize_output)

    @classmethod
    def _adopt(
        cls,
        conv: _Float,
        qconfig: QConfig | None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> Self:
        """`from_float` that takes the parameters themselves, so that tied weights stay tied."""
        if conv.padding_mode != "zeros":
            raise ValueError(
                f'{cls.__name__}: padding_mode must be "zeros", got {conv.padding_mode!r}'
            )
        arguments: dict[str, Any] = {name: getattr(conv, name) for name in cls._arguments}
        module = cls(
            **arguments,
            bias=conv.bias is not None,
            device="meta",
            qconfig=qconfig,
            relu=relu,
            quantize_output=quantize_output,
        )
        return module._take_over(conv)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Returns float32 `[N, Cout, ...]`."""
        return self._run_deployed(input)

    def extra_repr(self) -> str:
        """Torch's, and the ReLU."""
        return f"{super().extra_repr()}, {self._relu_repr()}"

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert isinstance(self, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        y: Tensor = self._conv_forward(x, weight, bias)
        return y


class Conv1d(_Conv, nn.Conv1d):
    """`torch.nn.Conv1d` with a quantized weight, then an optional ReLU, then a quantized output.

    Takes float32 `[N, Cin, L]`, whose values should be quantized already: by the layer that made
    them or by a `FakeQuantize`. Padding is with zeros.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device: As
            in `torch.nn.Conv1d`.
        qconfig: How to quantize; None for `QConfig()`.
        relu: False, True or "relu6".
        quantize_output: Whether the output is quantized.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: _size_1_t | str = 0,
        dilation: _size_1_t = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        device: Device = None,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            device=device,
        )
        qconfig = qconfig or QConfig()
        self._init_weight(qconfig, self.weight.shape, device)
        self._init_output(qconfig, relu, quantize_output, device)


class Conv2d(_Conv, nn.Conv2d):
    """`torch.nn.Conv2d` with a quantized weight, then an optional ReLU, then a quantized output.

    Takes float32 `[N, Cin, H, W]`, whose values should be quantized already: by the layer that made
    them or by a `FakeQuantize`. Padding is with zeros.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device: As
            in `torch.nn.Conv2d`.
        qconfig: How to quantize; None for `QConfig()`.
        relu: False, True or "relu6".
        quantize_output: Whether the output is quantized.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: _size_2_t | str = 0,
        dilation: _size_2_t = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        device: Device = None,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            device=device,
        )
        qconfig = qconfig or QConfig()
        self._init_weight(qconfig, self.weight.shape, device)
        self._init_output(qconfig, relu, quantize_output, device)


class Conv3d(_Conv, nn.Conv3d):
    """`torch.nn.Conv3d` with a quantized weight, then an optional ReLU, then a quantized output.

    Takes float32 `[N, Cin, D, H, W]`, whose values should be quantized already: by the layer that
    made them or by a `FakeQuantize`. Padding is with zeros.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device: As
            in `torch.nn.Conv3d`.
        qconfig: How to quantize; None for `QConfig()`.
        relu: False, True or "relu6".
        quantize_output: Whether the output is quantized.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_3_t,
        stride: _size_3_t = 1,
        padding: _size_3_t | str = 0,
        dilation: _size_3_t = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        device: Device = None,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            device=device,
        )
        qconfig = qconfig or QConfig()
        self._init_weight(qconfig, self.weight.shape, device)
        self._init_output(qconfig, relu, quantize_output, device)


class _ConvTranspose(_Conv):
    """What transposed convolutions have in common.

    The weight's output channels come second, in each group; its scales belong to them.
    """

    _arguments = (*_ARGUMENTS, "output_padding")
    _function: Callable[..., Tensor]  # of torch.nn.functional

    groups: int

    def _deployed_weight(self) -> Tensor:
        return self._exchange_channels(self.weight)

    @torch.no_grad()
    def _set_deployed_weight(self, weight: Tensor) -> None:
        self.weight.copy_(self._exchange_channels(weight))

    def _exchange_channels(self, weight: Tensor) -> Tensor:
        """From output channels first to input channels first, or back."""
        if self.groups == 1:
            return weight.transpose(0, 1)
        groups: Tensor = weight.unflatten(0, (self.groups, -1))
        return groups.transpose(1, 2).flatten(0, 1)

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert isinstance(self, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
        return type(self)._function(
            x,
            self._exchange_channels(weight),
            bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` with a quantized weight, an optional ReLU and a quantized output.

    Takes float32 `[N, Cin, L]`, whose values should be quantized already: by the layer that made
    them or by a `FakeQuantize`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, bias, dilation,
            groups, device: As in `torch.nn.ConvTranspose1d`.
        qconfig: How to quantize; None for `QConfig()`.
        relu: False, True or "relu6".
        quantize_output: Whether the output is quantized.
    """

    _function = staticmethod(F.conv_transpose1d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: _size_1_t = 0,
        output_padding: _size_1_t = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _size_1_t = 1,
        *,
        device: Device = None,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            groups=groups,
            bias=bias,
            dilation=dilation,
            device=device,
        )
        qconfig = qconfig or QConfig()
        self._init_weight(qconfig, self._exchange_channels(self.weight).shape, device)
        self._init_output(qconfig, relu, quantize_output, device)

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]  # noqa: A002
        """Returns float32 `[N, Cout, L']`."""
        return self._run_deployed(input)


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with a quantized weight, an optional ReLU and a quantized output.

    Takes float32 `[N, Cin, H, W]`, whose values should be quantized already: by the layer that made
    them or by a `FakeQuantize`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, bias, dilation,
            groups, device: As in `torch.nn.ConvTranspose2d`.
        qconfig: How to quantize; None for `QConfig()`.
        relu: False, True or "relu6".
        quantize_output: Whether the output is quantized.
    """

    _function = staticmethod(F.conv_transpose2d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: _size_2_t = 0,
        output_padding: _size_2_t = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _size_2_t = 1,
        *,
        device: Device = None,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            groups=groups,
            bias=bias,
            dilation=dilation,
            device=device,
        )
        qconfig = qconfig or QConfig()
        self._init_weight(qconfig, self._exchange_channels(self.weight).shape, device)
        self._init_output(qconfig, relu, quantize_output, device)

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]  # noqa: A002
        """Returns float32 `[N, Cout, H', W']`."""
        return self._run_deployed(input)


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` with a quantized weight, an optional ReLU and a quantized output.

    Takes float32 `[N, Cin, D, H, W]`, whose values should be quantized already: by the layer that
    made them or by a `FakeQuantize`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, bias, dilation,
            groups, device: As in `torch.nn.ConvTranspose3d`.
        qconfig: How to quantize; None for `QConfig()`.
        relu: False, True or "relu6".
        quantize_output: Whether the output is quantized.
    """

    _function = staticmethod(F.conv_transpose3d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_3_t,
        stride: _size_3_t = 1,
        padding: _size_3_t = 0,
        output_padding: _size_3_t = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _size_3_t = 1,
        *,
        device: Device = None,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            groups=groups,
            bias=bias,
            dilation=dilation,
            device=device,
        )
        qconfig = qconfig or QConfig()
        self._init_weight(qconfig, self._exchange_channels(self.weight).shape, device)
        self._init_output(qconfig, relu, quantize_output, device)

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]  # noqa: A002
        """Returns float32 `[N, Cout, D', H', W']`."""
        return self._run_deployed(input)
