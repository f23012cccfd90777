"""The models of the benchmarks.

They have the structure of the originals and random weights: how long a model takes does not depend
on the values. Batch normalization gets the statistics that it meets with random inputs, so that all
ranges are those of a working network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.bert import VOCABULARY as BERT_VOCABULARY
from models.bert import BertEncoder
from models.efficientnet import EfficientNetB0
from models.mobilenet_v2 import MobileNetV2
from models.mobilenet_v3 import MobileNetV3Large
from models.resnet import resnet18, resnet50
from models.text_cnn import VOCABULARY as TEXT_VOCABULARY
from models.text_cnn import TextCNN
from models.unet import UNet
from models.vgg import VGG16BN


@dataclass(frozen=True)
class Architecture:
    """A model, and the inputs that it takes: images, or token ids below `vocabulary`."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of one input, without the batch
    quick_shape: tuple[int, ...]
    vocabulary: int | None = None
    transformer: bool = False

    def build(self) -> nn.Module:
        """In evaluation mode, the same every time."""
        torch.manual_seed(0)
        model = self.make()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear) and self.transformer:
                nn.init.normal_(module.weight, std=0.02)
        return learn_statistics(model, self.inputs(8, seed=1)).eval().requires_grad_(False)

    def inputs(self, batch: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        size = (batch, *self.shape)
        if self.vocabulary is not None:
            return torch.randint(self.vocabulary, size, generator=generator)
        return torch.randn(size, generator=generator)

    def quick(self) -> Architecture:
        """With small inputs."""
        return replace(self, shape=self.quick_shape)


def learn_statistics(model: nn.Module, x: Tensor) -> nn.Module:
    """Gives batch normalization the statistics that it meets with these inputs."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            model.train()(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


IMAGE, SMALL_IMAGE = (3, 224, 224), (3, 64, 64)

ARCHITECTURES = {
    "resnet18": Architecture("ResNet-18", resnet18, IMAGE, SMALL_IMAGE),
    "resnet50": Architecture("ResNet-50", resnet50, IMAGE, SMALL_IMAGE),
    "mobilenet_v2": Architecture("MobileNetV2", MobileNetV2, IMAGE, SMALL_IMAGE),
    "mobilenet_v3_large": Architecture("MobileNetV3-large", MobileNetV3Large, IMAGE, SMALL_IMAGE),
    "efficientnet_b0": Architecture("EfficientNet-B0", EfficientNetB0, IMAGE, SMALL_IMAGE),
    "vgg16_bn": Architecture("VGG-16-BN", VGG16BN, IMAGE, SMALL_IMAGE),
    "unet": Architecture("U-Net", UNet, (3, 128, 128), (3, 32, 32)),
    "text_cnn": Architecture("Text CNN", TextCNN, (128,), (16,), vocabulary=TEXT_VOCABULARY),
    "bert_base": Architecture(
        "BERT-base", BertEncoder, (128,), (16,), vocabulary=BERT_VOCABULARY, transformer=True
    ),
}
