"""Data that models are run with: batches, and what is in them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

_BATCH_SIZE = 64
_T = TypeVar("_T")


def batches_of(data: Tensor | Iterable[Any], num_samples: int | None) -> Iterable[Any]:
    """A tensor of samples in batches; anything else as it is."""
    if not isinstance(data, Tensor):
        return data
    if data.dim() == 0:
        return [data]
    samples = data if num_samples is None else data[:num_samples]
    return list(samples.split(_BATCH_SIZE)) if len(samples) else []


def tensors_in(batch: object) -> Iterator[Tensor]:
    """The tensors of a batch: itself, or those in tuples, lists and mappings."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_in(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from tensors_in(value)


def limited(batches: Iterable[Any], num_samples: int | None) -> Iterator[Any]:
    """Batches up to the one that reaches so many samples.

    The first dimension of the first tensor of a batch counts them.
    """
    samples = 0
    for batch in batches:
        yield batch
        x = next(tensors_in(batch), None)
        samples += 0 if x is None or x.dim() == 0 else len(x)
        if num_samples is not None and samples >= num_samples:
            return


def first_tensor(owner: str, batch: object, hint: str = "") -> Tensor:
    """The batch, or the first element of a tuple or list; the others usually are labels.

    Raises:
        TypeError: It is something else.
    """
    x = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{owner}: a batch must be a tensor, or a tuple or list that starts with one, got "
            f"{type(batch).__name__}{hint}"
        )
    return x


class ForwardFirst:
    """Feeds a model with the first tensor of a batch, for the function `owner`."""

    def __init__(self, owner: str) -> None:
        self._owner = owner

    def __call__(self, model: nn.Module, batch: object) -> object:
        """Runs the model."""
        hint = "; use the argument forward for batches of another form"
        return model(first_tensor(self._owner, batch, hint))


def check_num_samples(owner: str, num_samples: int | None) -> None:
    """Raises ValueError unless it is None or at least 1."""
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"{owner}: num_samples must be at least 1, got {num_samples}")


def shown(items: Iterable[_T], description: str, progress: bool | None) -> Iterator[_T]:
    """The items, with a progress bar; None: if the standard error output is a terminal."""
    visible = sys.stderr.isatty() if progress is None else progress
    try:
        total = len(items)  # type: ignore[arg-type]
    except TypeError:  # an iterator, or a DataLoader of an iterable dataset
        total = None
    console = Console(stderr=True)
    yield from track(
        items, description=description, total=total, console=console, disable=not visible
    )
