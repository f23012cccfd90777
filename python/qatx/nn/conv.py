"""Quantized convolutions."""

from __future__ import annotations

import copy
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.common_types import _size_1_t, _size_2_t
from typing_extensions import Self

from qatx.nn._layer import Device, Relu, WeightedLayer
from qatx.qconfig import QConfig

_Float: TypeAlias = nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d
_ARGUMENTS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
)


class _Conv(WeightedLayer):
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
        assert isinstance(self, (nn.Conv1d, nn.Conv2d))
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


class ConvBn2d(Conv2d):
    """A convolution with the batch normalization after it folded into its quantized weight.

    What is quantized is `weight * gamma / sqrt(running_var + eps)`, the weight that is deployed
    (arXiv 1806.08342, section 3.2.2). In training the result is scaled back and normalized with the
    statistics of the batch. In evaluation, and in training once `batch_norm_frozen` is set, the
    layer is one convolution with the folded weight and bias.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, device: As in
            `torch.nn.Conv2d`.
        bias: Whether the convolution has a bias of its own, before the normalization.
        eps, momentum, affine: As in `torch.nn.BatchNorm2d`.
        qconfig, relu, quantize_output: As in `Conv2d`.

    Attributes:
        bn: The `torch.nn.BatchNorm2d`.
        batch_norm_frozen: Whether training uses the running statistics and leaves them alone.
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
        bias: bool = False,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        device: Device = None,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            device=device,
            qconfig=qconfig,
            relu=relu,
            quantize_output=quantize_output,
        )
        self.bn = nn.BatchNorm2d(
            out_channels, eps=eps, momentum=momentum, affine=affine, device=device
        )
        self.batch_norm_frozen = False

    @classmethod
    def from_float(  # type: ignore[override]
        cls,
        conv: nn.Conv2d,
        bn: nn.BatchNorm2d,
        *,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> Self:
        """Makes the quantized twin of a convolution and the batch normalization behind it.

        Raises:
            ValueError: `conv` pads with something else than zeros or is not float32, or `bn` does
                not fit or has no running statistics.
        """
        conv, bn = copy.deepcopy((conv, bn))
        return cls._adopt(conv, qconfig, relu, quantize_output)._adopt_bn(bn)

    def _adopt_bn(self, bn: nn.BatchNorm2d) -> Self:
        if bn.num_features != self.out_channels:
            raise ValueError(
                f"{type(self).__name__}: bn must have the {self.out_channels} channels of the "
                f"convolution, got {bn.num_features}"
            )
        if bn.running_mean is None or bn.running_var is None:
            raise ValueError(
                f"{type(self).__name__}: bn must have running statistics (track_running_stats=True)"
            )
        self.bn = bn
        return self

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Returns float32 `[N, Cout, H', W']`."""
        if not self.training or self.batch_norm_frozen:
            return self._run_deployed(input)
        # The division below takes the factor back out: all of gamma's gradient but noise of
        # rounding comes from the normalization.
        factor = self._factor(detach_gamma=True)
        weight = self.weight_fake_quantize(self.weight * factor[:, None, None, None])
        y = self._conv_forward(input, weight, None)
        y = y / _divisor(factor)[:, None, None]
        if self.bias is not None:
            y = y + self.bias[:, None, None]
        return self._finish(self.bn(y))

    def _factor(self, *, detach_gamma: bool = False) -> Tensor:
        """What normalization with the running statistics multiplies each channel with."""
        assert self.bn.running_var is not None
        factor = torch.rsqrt(self.bn.running_var + self.bn.eps)
        if self.bn.affine:
            factor = factor * (self.bn.weight.detach() if detach_gamma else self.bn.weight)
        return factor

    def _deployed_weight(self) -> Tensor:
        weight: Tensor = self.weight * self._factor()[:, None, None, None]
        return weight

    def _deployed_bias(self) -> Tensor:
        mean = self.bn.running_mean
        assert mean is not None
        bias = (-mean if self.bias is None else self.bias - mean) * self._factor()
        return bias + self.bn.bias if self.bn.affine else bias

    @torch.no_grad()
    def _set_deployed_weight(self, weight: Tensor) -> None:
        factor = self._factor()[:, None, None, None]
        self.weight.copy_(torch.where(factor == 0, self.weight, weight / _divisor(factor)))

    @torch.no_grad()
    def _add_to_bias(self, change: Tensor) -> None:
        if self.bn.affine:
            self.bn.bias.add_(change)
        else:
            assert self.bn.running_mean is not None
            self.bn.running_mean.sub_(change / self._factor())

    # A tensor, because some formats of state dicts hold nothing else.
    def get_extra_state(self) -> Tensor:
        """`batch_norm_frozen`, for `state_dict`."""
        return torch.tensor(self.batch_norm_frozen)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes `batch_norm_frozen` from a state dict."""
        self.batch_norm_frozen = bool(state)

    def extra_repr(self) -> str:
        """Torch's, the ReLU, and whether batch normalization is frozen."""
        return f"{super().extra_repr()}, batch_norm_frozen={self.batch_norm_frozen}"


def _divisor(factor: Tensor) -> Tensor:
    """Where gamma is 0, so is the weight: whatever it is divided by, nothing changes."""
    return torch.where(factor == 0, 1.0, factor)


class ConvTranspose2d(_Conv, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with a quantized weight, an optional ReLU and a quantized output.

    Takes float32 `[N, Cin, H, W]`, whose values should be quantized already: by the layer that made
    them or by a `FakeQuantize`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, bias, dilation,
            device: As in `torch.nn.ConvTranspose2d`.
        groups: 1.
        qconfig: How to quantize; None for `QConfig()`.
        relu: False, True or "relu6".
        quantize_output: Whether the output is quantized.

    Raises:
        ValueError: `groups` is not 1.
    """

    _arguments = (*_ARGUMENTS, "output_padding")

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
        if groups != 1:
            raise ValueError(f"ConvTranspose2d: groups must be 1, got {groups}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            bias=bias,
            dilation=dilation,
            device=device,
        )
        qconfig = qconfig or QConfig()
        self._init_weight(qconfig, self.weight.transpose(0, 1).shape, device)
        self._init_output(qconfig, relu, quantize_output, device)

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]  # noqa: A002
        """Returns float32 `[N, Cout, H', W']`."""
        return self._run_deployed(input)

    # The weight's output channels come second; its scales belong to them.

    def _deployed_weight(self) -> Tensor:
        weight: Tensor = self.weight.transpose(0, 1)
        return weight

    @torch.no_grad()
    def _set_deployed_weight(self, weight: Tensor) -> None:
        self.weight.copy_(weight.transpose(0, 1))

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert not isinstance(self.padding, str)
        return F.conv_transpose2d(
            x,
            weight.transpose(0, 1),
            bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )
