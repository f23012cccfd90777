"""What calibration and post-training quantization cost in accuracy. All of it is measured with the
converted model, in integers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import qatx
import torch
from _calibration_networks import Subject
from _results import Accuracy
from qatx._ranges import RangeMethod
from torch import Tensor, nn

FLOAT, MIN_MAX, KL = "float32", "min_max", "kl"
METHODS: tuple[RangeMethod, ...] = tuple(
    m for m in get_args(RangeMethod) if m not in ("lsq", "moving_average")
)
BY_METHOD = "accuracy by method"
BY_SAMPLES = "accuracy by number of samples"
NOISE, REAL_DATA, NOISE_DATA = "random noise", "1,000 images", "1,000 random images"
ROUNDING, NEAREST, PLAIN = "rounding of weights", "mse, nearest", "min_max, nearest"
NUM_SAMPLES = 1000


def by_method(subject: Subject) -> Iterator[Accuracy]:
    """Ranges of activations: 8 bits, with 8-bit and with 4-bit weights, and 4 bits."""
    for bits, activation_bits in ((8, 8), (4, 8), (8, 4)):
        case = f"{BY_METHOD}: {subject.name}, W{bits}A{activation_bits}"
        yield Accuracy(case, FLOAT, subject.accuracy(subject.model))
        qconfig = qatx.QConfig(
            weight=qatx.QuantSpec(bits=bits, axis=0),
            activation=qatx.QuantSpec(bits=activation_bits, signed=False, symmetric=False),
            weight_range="mse" if bits < 8 else None,
        )
        for method in METHODS:
            model = calibrated(subject, subject.calibration[:NUM_SAMPLES], method, qconfig)
            yield Accuracy(case, method, accuracy(subject, model))


def by_samples(subject: Subject, counts: Sequence[int]) -> Iterator[Accuracy]:
    """Mean over parts of the data where these are few."""
    for count in counts:
        parts = subject.calibration.split(count)[: 5 if count <= 100 else 1]
        for method in METHODS:
            found = [accuracy(subject, calibrated(subject, part, method)) for part in parts]
            yield Accuracy(
                f"{BY_SAMPLES}, {subject.name}: {count:,}", method, sum(found) / len(found)
            )


def on_noise(subject: Subject) -> Iterator[Accuracy]:
    """Calibration with what has the mean and the deviation of images, but nothing else of them."""
    images = subject.calibration[:NUM_SAMPLES]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(images.shape, generator=generator) * images.std() + images.mean()
    for data, name in ((images, REAL_DATA), (noise, NOISE_DATA)):
        for method in METHODS:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model = calibrated(subject, data, method, warn=True)
            warned = any("look like random noise" in str(w.message) for w in caught)
            yield Accuracy(
                f"{NOISE}, {subject.name}: {name}", method, accuracy(subject, model), warned
            )


def rounding(subject: Subject, spec: qatx.QuantSpec) -> Iterator[Accuracy]:
    """What the methods of `qatx.ptq` get out of weights of few bits."""
    images = subject.calibration[:NUM_SAMPLES]
    scales = "channel" if spec.axis is not None else "tensor"
    case = f"{ROUNDING}: {subject.name}, W{spec.bits}A8, a scale for each {scales}"
    yield Accuracy(case, FLOAT, subject.accuracy(subject.model))
    for name, method in ((PLAIN, "min_max"), (NEAREST, "mse")):
        qconfig = qatx.QConfig(weight=spec, weight_range=method)
        model = calibrated(subject, images, MIN_MAX, qconfig)
        yield Accuracy(case, name, accuracy(subject, model))
    for name in ("correct_bias", "gptq", "adaround"):
        rounded = copy.deepcopy(model)
        getattr(qatx.ptq, name)(rounded, images, num_samples=512, progress=False)
        yield Accuracy(case, f"mse, {name}", accuracy(subject, rounded))
        if name != "correct_bias":
            qatx.ptq.correct_bias(rounded, images, reference=subject.model, progress=False)
            yield Accuracy(case, f"mse, {name}, correct_bias", accuracy(subject, rounded))


def calibrated(
    subject: Subject,
    data: Tensor,
    method: RangeMethod,
    qconfig: qatx.QConfig | None = None,
    *,
    warn: bool = False,
) -> nn.Module:
    """The network, prepared and calibrated."""
    model = qatx.prepare(subject.model, qconfig)
    with warnings.catch_warnings():
        if not warn:
            warnings.simplefilter("ignore", qatx.CalibrationWarning)
        qatx.calibrate(model, data, method=method, progress=False)
    return model.eval()


def accuracy(subject: Subject, model: nn.Module) -> float:
    """That of the converted model."""
    converted, _ = qatx.convert(model, subject.test[:1])
    return subject.accuracy(converted)


def points(rows: Mapping[str, Accuracy], name: str, other: str) -> float:
    """How many points of a hundred one contender is better than another."""
    return 100 * (rows[name].accuracy - rows[other].accuracy)
