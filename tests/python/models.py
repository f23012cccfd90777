"""Float models for the tests, and what they look like prepared."""

import qatx
import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Every pattern of a residual network: `[N, 3, 8, 8]` to `[N, 5]`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)  # called twice
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = self.relu(y + x)
        return self.fc(self.flatten(self.pool(y)))


def randomize_batch_norm(model: nn.Module) -> nn.Module:
    """Gives batch normalization statistics, gammas (one of them negative) and betas that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.track_running_stats:
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.5)
                with torch.no_grad():
                    module.weight[0] *= -1
    return model


def learn_statistics(model: nn.Module, x: Tensor) -> nn.Module:
    """Gives batch normalization the statistics that it meets with these inputs."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    return model


def quantized_values(model: nn.Module) -> set[str]:
    """The paths of what quantizes activations."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, qatx.nn.FakeQuantize) and module.role == "activation"
    }


def layers(model: nn.Module) -> dict[str, str]:
    """Path and type of the layers of `qatx.nn`, with their ReLU."""
    kinds = (qatx.nn.Add, qatx.nn.Conv2d, qatx.nn.Linear)
    return {
        name: type(module).__name__ + {False: "", True: "+relu", "relu6": "+relu6"}[module.relu]
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    }
