"""The demo's network: a small residual CNN of plain `torch.nn` modules."""

from __future__ import annotations

from fashion_mnist_data import NUM_CLASSES
from torch import Tensor, nn


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
) -> list[nn.Module]:
    """Convolution that keeps the size at stride 1, and its batch normalization."""
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
    )
    return [conv, nn.BatchNorm2d(out_channels)]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 shortcut: `[N, Cin, H, W]` to `[N, Cout, H/s, W/s]`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_bn(in_channels, out_channels, 3, stride=stride),
            nn.ReLU(inplace=True),
            *conv_bn(out_channels, out_channels, 3),
        )
        self.shortcut = nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride=stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return y


class SmallResNet(nn.Module):
    """Stem, three residual stages, a depthwise-separable block, average pooling, classifier.

    Takes float32 `[N, 1, 28, 28]` and returns logits `[N, 10]`.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 96, 192)) -> None:
        super().__init__()
        stem, first, second, third = widths
        self.stem = nn.Sequential(*conv_bn(1, stem, 3), nn.ReLU(inplace=True))
        self.stages = nn.Sequential(
            ResidualBlock(stem, first, stride=2),
            ResidualBlock(first, second, stride=2),
            ResidualBlock(second, third, stride=2),
        )
        self.separable = nn.Sequential(
            *conv_bn(third, third, 3, groups=third),
            nn.ReLU(inplace=True),
            *conv_bn(third, third, 1),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(third, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.separable(self.stages(self.stem(x)))
        scores: Tensor = self.classifier(self.flatten(self.pool(x)))
        return scores
