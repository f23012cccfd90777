"""MobileNetV2, with the parameter names of torchvision."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models._blocks import conv_norm

# Expansion, output channels, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 convolution to many channels, depthwise convolution, and a linear one back to few."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_norm(channels, hidden, 1, activation=nn.ReLU6))
        layers.append(
            conv_norm(hidden, hidden, 3, stride=stride, groups=hidden, activation=nn.ReLU6)
        )
        layers += conv_norm(hidden, out, 1, activation=None)
        self.conv = nn.Sequential(*layers)
        self.use_res_connect = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.use_res_connect else y


class MobileNetV2(nn.Module):
    """Images `[N, 3, H, W]` to scores `[N, 1000]`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 32, 3, stride=2, activation=nn.ReLU6)]
        channels = 32
        for expansion, out, depth, stride in STAGES:
            for i in range(depth):
                layers.append(InvertedResidual(channels, out, stride if i == 0 else 1, expansion))
                channels = out
        layers.append(conv_norm(channels, 1280, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        scores: Tensor = self.classifier(x.flatten(1))
        return scores
