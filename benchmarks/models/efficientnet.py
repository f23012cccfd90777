"""EfficientNet-B0, with the parameter names of torchvision."""

from __future__ import annotations

from torch import Tensor, nn

from models._blocks import Residual, SqueezeExcitation, conv_norm

# Expansion, kernel, stride of the first block, output channels, blocks.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def mb_conv(channels: int, expansion: int, kernel_size: int, stride: int, out: int) -> Residual:
    hidden = channels * expansion
    layers: list[nn.Module] = []
    if expansion != 1:
        layers.append(conv_norm(channels, hidden, 1, activation=nn.SiLU))
    layers += [
        conv_norm(hidden, hidden, kernel_size, stride=stride, groups=hidden, activation=nn.SiLU),
        SqueezeExcitation(hidden, max(1, channels // 4), nn.SiLU, nn.Sigmoid),
        conv_norm(hidden, out, 1, activation=None),
    ]
    return Residual(nn.Sequential(*layers), shortcut=stride == 1 and channels == out)


class EfficientNetB0(nn.Module):
    """Images `[N, 3, H, W]` to scores `[N, 1000]`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 32, 3, stride=2, activation=nn.SiLU)]
        channels = 32
        for expansion, kernel_size, stride, out, depth in STAGES:
            blocks = []
            for i in range(depth):
                blocks.append(
                    mb_conv(channels, expansion, kernel_size, stride if i == 0 else 1, out)
                )
                channels = out
            layers.append(nn.Sequential(*blocks))
        layers.append(conv_norm(channels, 1280, 1, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2, inplace=True), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return scores
