"""MobileNetV3-large, with the parameter names of torchvision."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from models._blocks import Residual, SqueezeExcitation, conv_norm, divisible

norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)

# Kernel, expanded channels, output channels, squeeze-and-excite, activation, stride.
BLOCKS = (
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
    (5, 960, 160, True, nn.Hardswish, 1),
)


def inverted_residual(
    channels: int,
    kernel_size: int,
    hidden: int,
    out: int,
    squeeze: bool,
    activation: type[nn.Module],
    stride: int,
) -> Residual:
    layers: list[nn.Module] = []
    if hidden != channels:
        layers.append(conv_norm(channels, hidden, 1, norm=norm, activation=activation))
    layers.append(
        conv_norm(
            hidden,
            hidden,
            kernel_size,
            stride=stride,
            groups=hidden,
            norm=norm,
            activation=activation,
        )
    )
    if squeeze:
        layers.append(SqueezeExcitation(hidden, divisible(hidden // 4), nn.ReLU, nn.Hardsigmoid))
    layers.append(conv_norm(hidden, out, 1, norm=norm, activation=None))
    return Residual(nn.Sequential(*layers), shortcut=stride == 1 and channels == out)


class MobileNetV3Large(nn.Module):
    """Images `[N, 3, H, W]` to scores `[N, 1000]`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            conv_norm(3, 16, 3, stride=2, norm=norm, activation=nn.Hardswish)
        ]
        channels = 16
        for kernel_size, hidden, out, squeeze, activation, stride in BLOCKS:
            layers.append(
                inverted_residual(channels, kernel_size, hidden, out, squeeze, activation, stride)
            )
            channels = out
        layers.append(conv_norm(channels, 960, 1, norm=norm, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(960, 1280),
            nn.Hardswish(inplace=True),
            nn.Dropout(0.2, inplace=True),
            nn.Linear(1280, 1000),
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return scores
