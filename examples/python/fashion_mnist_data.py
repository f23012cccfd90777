"""Images for the demo: Fashion-MNIST from disk, or else scikit-learn's digits."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
FASHION_MNIST, DIGITS = "Fashion-MNIST", "scikit-learn digits"
IMAGE_SIZE = 28
NUM_CLASSES = 10
MAX_SHIFT = 1  # pixels, of the random translation

_UNSIGNED_BYTE = 0x08  # element type in the header of an IDX file


class DataError(RuntimeError):
    """A data file is missing or damaged; the message names it."""


@dataclass(frozen=True)
class Dataset:
    """Images as uint8 `[N, 1, 28, 28]`, labels as int64 `[N]`, statistics of the former."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: float
    std: float
    mirrored: bool  # whether a mirrored image keeps its label

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 images as float32 with zero mean and unit variance, in channels_last."""
        return (
            images.float()
            .sub_(self.mean)
            .div_(self.std)
            .contiguous(memory_format=torch.channels_last)
        )

    def subset(self, num_train: int, num_test: int) -> Dataset:
        """The first images of each part; the statistics stay those of the whole."""
        return Dataset(
            self.name,
            self.train_images[:num_train],
            self.train_labels[:num_train],
            self.test_images[:num_test],
            self.test_labels[:num_test],
            self.mean,
            self.std,
            self.mirrored,
        )

    def train_batches(
        self, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of shuffled, augmented, normalized batches, without a last partial one."""
        order = torch.randperm(len(self.train_labels), generator=generator)
        for chosen in order.split(batch_size):
            if len(chosen) == batch_size:
                images = augment(self.train_images[chosen], self.mirrored, generator)
                yield self.normalize(images), self.train_labels[chosen]


def augment(images: Tensor, mirror: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `MAX_SHIFT` pixels and, if `mirror`, flip half of them.

    Both are one gather: each image picks its own rows and columns from the zero-padded image.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (MAX_SHIFT,) * 4).squeeze(1)
    corner = torch.randint(0, 2 * MAX_SHIFT + 1, (2, count, 1), generator=generator)
    rows = corner[0] + torch.arange(height)
    columns = corner[1] + torch.arange(width)
    if mirror:
        flip = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(flip, columns.flip(1), columns)
    image = torch.arange(count)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def load(folder: Path | None) -> Dataset:
    """Fashion-MNIST from `folder`, or from Debian's package; without either, the digits.

    Raises:
        DataError: `folder` was given or Debian's exists, and a file in it is missing or damaged.
    """
    if folder is None and not DEBIAN_FOLDER.is_dir():
        return load_digits()
    return load_fashion_mnist(folder or DEBIAN_FOLDER)


def load_fashion_mnist(folder: Path) -> Dataset:
    """Read the four gzipped IDX files of Fashion-MNIST."""
    parts = [
        tensor
        for prefix in ("train", "t10k")
        for tensor in _read_images_and_labels(
            folder / f"{prefix}-images-idx3-ubyte.gz", folder / f"{prefix}-labels-idx1-ubyte.gz"
        )
    ]
    return _make_dataset(FASHION_MNIST, *parts, mirrored=True)


def load_digits() -> Dataset:
    """scikit-learn's 1,797 digits, 8 x 8 enlarged to 28 x 28; every fifth is a test image."""
    from sklearn import datasets

    raw, labels = datasets.load_digits(return_X_y=True)
    small = torch.from_numpy(raw).float().reshape(-1, 1, 8, 8) * (255.0 / 16.0)
    large = F.interpolate(small, size=IMAGE_SIZE, mode="bilinear", align_corners=False)
    images, targets = large.round().to(torch.uint8), torch.from_numpy(labels).long()
    test = torch.arange(len(targets)) % 5 == 0
    return _make_dataset(
        DIGITS,
        images[~test],
        targets[~test],
        images[test],
        targets[test],
        mirrored=False,
    )


def _make_dataset(
    name: str,
    train_images: Tensor,
    train_labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    *,
    mirrored: bool,
) -> Dataset:
    std, mean = torch.std_mean(train_images.float())
    return Dataset(
        name,
        train_images,
        train_labels,
        test_images,
        test_labels,
        mean.item(),
        std.item(),
        mirrored,
    )


def _read_images_and_labels(images_path: Path, labels_path: Path) -> tuple[Tensor, Tensor]:
    images, labels = _read_idx(images_path), _read_idx(labels_path)
    if images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
        raise DataError(
            f"{images_path}: holds an array of shape {tuple(images.shape)}, "
            f"expected [N, {IMAGE_SIZE}, {IMAGE_SIZE}]"
        )
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"{labels_path}: holds an array of shape {tuple(labels.shape)}, "
            f"expected one label for each of the {len(images)} images"
        )
    if int(labels.max()) >= NUM_CLASSES:
        raise DataError(f"{labels_path}: expected labels from 0 to {NUM_CLASSES - 1}")
    return images.unsqueeze(1), labels.long()


def _read_idx(path: Path) -> Tensor:
    """The uint8 array of a gzipped IDX file: two zero bytes, type, rank, big-endian sizes, data."""
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(content) < 4 or content[:3] != bytes((0, 0, _UNSIGNED_BYTE)):
        raise DataError(f"{path}: not an IDX file of unsigned bytes")
    header = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if len(content) != header + math.prod(shape) or 0 in shape:
        raise DataError(f"{path}: {len(content)} bytes do not hold an array of shape {shape}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).reshape(shape)
