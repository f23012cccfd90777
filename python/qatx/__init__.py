"""Quantization-aware training for PyTorch that ends in integers.

Example:
    >>> model = qatx.prepare(float_model)  # a copy with fake quantization
    >>> ranges = qatx.calibrate(model, batches)  # from here on evaluate or train it
    >>> converted, report = qatx.convert(model, example_inputs)  # TorchScript with integers
    >>> qatx.verify(model, converted, batches).ok  # whether both compute the same
    True
    >>> qatx.save(converted, path)  # for qatx.load, and for torch::jit::load in C++
"""

from pathlib import Path as _Path

import torch as _torch

from qatx import _build_info


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


# LibTorch's C++ interface changes with every minor version: with another one, importing _C would
# fail in an obscure way.
if _minor(_torch.__version__) != _minor(_build_info.TORCH_VERSION):
    raise ImportError(
        f"qatx {_build_info.VERSION} was built with torch {_build_info.TORCH_VERSION} and does not "
        f"work with torch {_torch.__version__}: install torch "
        f"{_minor(_build_info.TORCH_VERSION)}, or build qatx again with the torch that is installed"
    )

from qatx import nn, ptq  # noqa: E402
from qatx._C import QuantSpec, Verification, VerificationRow  # noqa: E402
from qatx._calibrate import CalibrationWarning, calibrate  # noqa: E402
from qatx._calibration_report import CalibrationReport, CalibrationRow  # noqa: E402
from qatx._convert import convert  # noqa: E402
from qatx._io import load, save  # noqa: E402
from qatx._prepare import prepare  # noqa: E402
from qatx._report import Report, ReportRow  # noqa: E402
from qatx._training import freeze_batch_norm, parameter_groups  # noqa: E402
from qatx._verify import verify  # noqa: E402
from qatx.qconfig import QConfig  # noqa: E402

__version__: str = _build_info.VERSION

#: What CMake's `find_package(qatx)` needs in CMAKE_PREFIX_PATH to find the library of this package.
cmake_prefix_path: str = str(_Path(__file__).parent / "share/cmake")

__all__ = [
    "CalibrationReport",
    "CalibrationRow",
    "CalibrationWarning",
    "QConfig",
    "QuantSpec",
    "Report",
    "ReportRow",
    "Verification",
    "VerificationRow",
    "__version__",
    "calibrate",
    "cmake_prefix_path",
    "convert",
    "freeze_batch_norm",
    "load",
    "nn",
    "parameter_groups",
    "prepare",
    "ptq",
    "save",
    "verify",
]
