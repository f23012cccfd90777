"""What a classifier predicts, how often it is right, and how fast it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]  # images [N, C, H, W] to scores [N, classes]

_EVALUATION_BATCH = 250
_WARM_UPS = 5
_ROUNDS = 25
_ROUND_SECONDS = 0.02  # long enough for the clock, short enough for many rounds


@torch.inference_mode()
def predict(model: Model, images: Tensor) -> Tensor:
    """The predicted class of each image, int64 `[N]`."""
    return torch.cat([model(batch).argmax(1) for batch in images.split(_EVALUATION_BATCH)])


def accuracy_of(model: Model, images: Tensor, labels: Tensor) -> float:
    """The fraction of the images whose label is predicted."""
    return agreement(predict(model, images), labels)


def agreement(first: Tensor, second: Tensor) -> float:
    """The fraction of elements that are equal."""
    return (first == second).double().mean().item()


@torch.inference_mode()
def seconds_per_call(models: Mapping[str, Model], batch: Tensor) -> dict[str, float]:
    """Median seconds that each model takes for `batch`.

    The models take turns in each round, so that whatever else the machine does meets all of them.
    """
    for model in models.values():
        for _ in range(_WARM_UPS):  # TorchScript optimizes in its first calls
            model(batch)
    samples: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_ROUNDS):
        for name, model in models.items():
            samples[name].append(_mean_seconds(model, batch))
    return {name: statistics.median(values) for name, values in samples.items()}


def _mean_seconds(model: Model, batch: Tensor) -> float:
    """Seconds per call, over as many calls as fill a round."""
    calls = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _ROUND_SECONDS:
        model(batch)
        calls += 1
    return elapsed / calls
