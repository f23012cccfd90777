"""What the mobile networks of torchvision have in common."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


def conv_norm(
    channels: int,
    out: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    norm: Norm = nn.BatchNorm2d,
    activation: type[nn.Module] | None,
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, its normalization and activation."""
    padding = (kernel_size - 1) // 2
    layers = [
        nn.Conv2d(channels, out, kernel_size, stride, padding, groups=groups, bias=False),
        norm(out),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class SqueezeExcitation(nn.Module):
    """Scales every channel by what two small layers make of the means of all channels."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        activation: type[nn.Module],
        scale_activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation()
        self.scale_activation = scale_activation()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.activation(self.fc1(self.avgpool(x)))
        y: Tensor = self.scale_activation(self.fc2(scale)) * x
        return y


class Residual(nn.Module):
    """`block`, with a shortcut around it where that fits."""

    def __init__(self, block: nn.Sequential, *, shortcut: bool) -> None:
        super().__init__()
        self.block = block
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return y + x if self.shortcut else y


def divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple, but not less than nine tenths of the value."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest
