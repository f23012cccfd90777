"""TorchScript without the warnings that it is deprecated: it is what qatx ships."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import torch
from torch import nn


def trace(model: nn.Module, example_inputs: tuple[Any, ...]) -> torch.jit.ScriptModule:
    """`torch.jit.trace` without a second run to check it."""
    with _quiet():
        traced: torch.jit.ScriptModule = torch.jit.trace(model, example_inputs, check_trace=False)
        return traced


def save(module: torch.jit.ScriptModule, file: IO[bytes]) -> None:
    """`torch.jit.save`."""
    with _quiet():
        torch.jit.save(module, file)


def load(file: IO[bytes]) -> torch.jit.ScriptModule:
    """`torch.jit.load`, to the CPU."""
    with _quiet():
        module: torch.jit.ScriptModule = torch.jit.load(file, map_location="cpu")
        return module


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        yield
