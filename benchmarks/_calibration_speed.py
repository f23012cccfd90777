"""How fast calibration is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import qatx
import torch
from _calibration_networks import Subject
from _measure import Budget
from _results import Row, compare
from onnxruntime.quantization.calibrate import HistogramCollector
from qatx._C import Observer
from torch import Tensor

OBSERVING, OBSERVE, READ = "observing a batch", "qatx observer", "torch amax"
SEARCHING, SEARCH, PEER = "KL search", "qatx", "ONNX Runtime"
CALIBRATING, CALIBRATE, INFERENCE = "calibrating", "qatx.calibrate", "inference"
BINS = 1024  # on either side: 2048, as in the paper
LEVELS = 128  # ONNX Runtime's default


def observing(budget: Budget) -> Iterator[Row]:
    """One batch of activations into one observer, against reading its memory once."""
    for shape in ((64, 64, 56, 56), (64, 64, 28, 28)):
        normal = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for kind, x in (("normal", normal), ("behind a ReLU", normal.relu())):
            observer = Observer(qatx.QuantSpec())
            yield from compare(
                f"{OBSERVING}: {'x'.join(map(str, shape))}, {kind}",
                {OBSERVE: lambda o=observer, x=x: o.observe(x), READ: lambda x=x: x.amax()},
                budget,
                ratio_to=READ,
            )


def searching(count: int, budget: Budget) -> Iterator[Row]:
    """The threshold of symmetric 8-bit codes for the same histograms."""
    observers = [_observed(i) for i in range(count)]
    spec = qatx.QuantSpec()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = HistogramCollector("entropy", True, 2 * BINS, LEVELS, 99.99, "same")
    histograms = [_as_onnx_runtime_has_it(observer) for observer in observers]

    def search() -> None:
        for observer in observers:
            observer.choose(spec, "kl")

    def search_of_peer() -> None:
        for histogram in histograms:
            peer.get_entropy_threshold(histogram, LEVELS)

    yield from compare(
        f"{SEARCHING}: {count} histograms of {2 * BINS} bins",
        {SEARCH: search, PEER: search_of_peer},
        budget,
        ratio_to=PEER,
    )


def calibrating(subject: Subject, count: int, budget: Budget) -> Iterator[Row]:
    """Everything that `qatx.calibrate` does, against the float network in evaluation mode."""
    images = subject.calibration[:count]
    prepared = qatx.prepare(subject.model)

    def calibrate() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            qatx.calibrate(prepared, images, progress=False)

    @torch.no_grad()
    def infer() -> None:
        for batch in images.split(64):
            subject.model(batch)

    yield from compare(
        f"{CALIBRATING}: {subject.name}, {count:,} images",
        {CALIBRATE: calibrate, INFERENCE: infer},
        budget,
        ratio_to=INFERENCE,
    )


def _observed(seed: int) -> Observer:
    """A tensor with a tail that is heavier or lighter, by turns."""
    generator = torch.Generator().manual_seed(seed)
    x: Tensor = torch.randn(100_000, generator=generator)
    observer = Observer(qatx.QuantSpec(), (), BINS)
    observer.observe(x * x.abs() ** (0.25 * (seed % 9)))
    return observer


def _as_onnx_runtime_has_it(observer: Observer) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Counts, edges, and the ends."""
    width = float(observer.bin_width)
    edges = (np.arange(2 * BINS + 1) - BINS) * width
    return observer.histogram[0].numpy(), edges, np.float64(observer.min), np.float64(observer.max)
