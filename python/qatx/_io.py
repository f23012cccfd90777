"""Saving and loading of converted models."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO

import torch

from qatx import _torchscript


def save(module: torch.jit.ScriptModule, path: str | os.PathLike[str]) -> None:
    """Writes a converted model as a TorchScript file.

    `qatx.load` reads it, and in C++, with libqatx, `torch::jit::load`. The file is there in full or
    not at all: it is written beside `path` and renamed.

    Args:
        module: What `qatx.convert` returned.
        path: Where to; a file that is there is replaced.

    Raises:
        TypeError: `module` is not a ScriptModule.
        OSError: The folder does not exist, or cannot be written to.
    """
    if not isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"qatx.save: module must be what qatx.convert returned, got {type(module).__name__}"
        )
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            _torchscript.save(module, file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> torch.jit.ScriptModule:
    """Reads a model that `qatx.save` or `torch.jit.save` wrote.

    Args:
        path: The file.

    Returns:
        The module, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: The file is truncated, altered, or not a TorchScript file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"qatx.load: there is no file {path}")
    with path.open("rb") as file:
        try:
            _check_checksums(file)
            return _torchscript.load(file)
        except Exception as error:  # damage shows in many ways
            raise RuntimeError(
                f"qatx.load: {path} is damaged or not a TorchScript file: {error}"
            ) from error


def _check_checksums(file: IO[bytes]) -> None:
    """Raises where a byte has changed, which LibTorch does not look for."""
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
    file.seek(0)
