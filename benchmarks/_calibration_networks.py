"""The networks of calibration.py, trained here, and their data.

*Demo network*: that of examples/python/fashion_mnist_model.py, trained as there, for fewer epochs.

*Outlier network*: three convolutions with SiLU and a linear layer, without batch normalization. Its
sensor glitches: in 2 % of all images, in training, calibration and test, one pixel has the value
500, where all others are between -1 and 3. So a few features of each layer are up to two orders of
magnitude larger than all others, in few images; and what they are does not matter for the class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples/python"))

from fashion_mnist_data import IMAGE_SIZE, Dataset, load
from fashion_mnist_evaluate import accuracy_of
from fashion_mnist_model import SmallResNet

DEMO, OUTLIERS = "demo network", "outlier network"
GLITCH_SHARE, GLITCH = 0.02, 500.0
BATCH_SIZE = 128


@dataclass(frozen=True)
class Subject:
    """A trained network, with normalized images.

    Attributes:
        calibration: 5,000 images of the training set.
        test, labels: The test set.
    """

    name: str
    model: nn.Module
    calibration: Tensor
    test: Tensor
    labels: Tensor

    def accuracy(self, model: Callable[[Tensor], Tensor]) -> float:
        """The share of test images whose class is predicted, 0 to 1."""
        return accuracy_of(model, self.test, self.labels)


def train_demo(quick: bool) -> Subject:
    """The demo network."""
    dataset = _dataset(quick)
    torch.manual_seed(0)
    model = SmallResNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.15, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    _train(model, optimizer, dataset, lambda x, _: x, epochs=1 if quick else 2)
    return _subject(DEMO, model, dataset, lambda x, _: x)


def train_outliers(quick: bool) -> Subject:
    """The outlier network."""
    dataset = _dataset(quick)
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.SiLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.SiLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.SiLU()),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 10)),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    _train(model, optimizer, dataset, add_glitches, epochs=1 if quick else 3)
    return _subject(OUTLIERS, model, dataset, add_glitches)


def add_glitches(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images with one pixel of some of them set to `GLITCH`."""
    images = images.clone()
    hit = torch.rand(len(images), generator=generator) < GLITCH_SHARE
    row, column = torch.randint(0, IMAGE_SIZE, (2, int(hit.sum())), generator=generator)
    images[hit.nonzero().flatten(), 0, row, column] = GLITCH
    return images


def _dataset(quick: bool) -> Dataset:
    dataset = load(None)
    return dataset.subset(4096, 500) if quick else dataset


Change = Callable[[Tensor, torch.Generator], Tensor]


def _train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    change: Change,
    epochs: int,
) -> None:
    """Half a triangle of the learning rate up, for a tenth of the steps, the rest down to 0."""
    generator = torch.Generator().manual_seed(0)
    steps = epochs * (len(dataset.train_labels) // BATCH_SIZE)
    peak = optimizer.param_groups[0]["lr"]
    step = 0
    model.train()
    for _ in range(epochs):
        for images, labels in dataset.train_batches(BATCH_SIZE, generator):
            progress = step / steps
            optimizer.param_groups[0]["lr"] = peak * min(10 * progress, (1 - progress) / 0.9)
            loss = F.cross_entropy(model(change(images, generator)), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
    model.eval()


def _subject(name: str, model: nn.Module, dataset: Dataset, change: Change) -> Subject:
    generator = torch.Generator().manual_seed(1)
    return Subject(
        name,
        model,
        change(dataset.normalize(dataset.train_images[:5000]), generator),
        change(dataset.normalize(dataset.test_images), generator),
        dataset.test_labels,
    )
