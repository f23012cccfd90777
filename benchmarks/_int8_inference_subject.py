"""A model of int8_inference.py, with its data, and what it should compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from models import Architecture
from torch import Tensor, nn

CALIBRATION_BATCHES, CALIBRATION_BATCH = 4, 4

# What the output of a contender, as signal to noise against float32, must be at least: nobody is
# timed who computes something else. Rounding errors add up over random layers as they do not over
# trained ones: small inputs leave some quantizers 3 to 5 dB. Zeros have 0.
LEAST_SQNR_FLOAT, LEAST_SQNR_INT8 = 40.0, 3.0

Call = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """What contenders prepare themselves for; `folder` takes their files."""

    architecture: Architecture
    folder: Path

    @cached_property
    def model(self) -> nn.Module:
        """In float32. Not to be changed."""
        return self.architecture.build()

    @cached_property
    def calibration(self) -> list[Tensor]:
        """Everyone takes ranges from the same inputs."""
        return [
            self.architecture.inputs(CALIBRATION_BATCH, seed=10 + i)
            for i in range(CALIBRATION_BATCHES)
        ]

    def inputs(self, batch: int) -> Tensor:
        return self.architecture.inputs(batch, seed=2)


@dataclass(frozen=True)
class Contender:
    """Someone who can run a model."""

    name: str
    open: Callable[[Tensor, int], Call]  # of inputs and threads: a call returns the output
    int8: bool
    variant: str | None = None  # where there are several ways, of which the fastest counts
    integer_macs: float | None = None  # share of multiply-accumulates that run in integers


class DiffersError(Exception):
    """The output of a contender is not that of the model."""


def agreement(contender: Contender, output: object, expected: Tensor) -> float:
    """Signal to noise of an output in decibels.

    Raises:
        DiffersError: It is too small.
    """
    actual = as_tensor(output)
    if actual.shape != expected.shape:
        raise DiffersError(f"output is {list(actual.shape)}, not {list(expected.shape)}")
    noise = (actual.double() - expected.double()).square().sum()
    signal = expected.double().square().sum()
    sqnr = (10 * torch.log10(signal / noise.clamp(min=1e-300))).item()
    least = LEAST_SQNR_INT8 if contender.int8 else LEAST_SQNR_FLOAT
    if not sqnr >= least:
        raise DiffersError(f"output has {sqnr:.1f} dB against float32, needs {least:.0f}")
    return round(min(sqnr, 200.0), 1)


def as_tensor(output: object) -> Tensor:
    return output if isinstance(output, Tensor) else torch.as_tensor(output)
