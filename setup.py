"""Builds the C++ part of qatx with CMake and installs it into the package."""

import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent

# The C++ interface of torch changes with every minor version: the package needs the one that it
# is built with.
TORCH_MINOR = ".".join(version("torch").split(".")[:2])


class CMakeBuild(build_ext):
    """Configures, builds and installs with CMake.

    An editable build lies in build/cmake, with the C++ tests and examples, and is installed into
    python/qatx. A wheel gets a build of its own, which names no path of this machine.
    CMAKE_ARGS adds arguments to the configuration; CMAKE_BUILD_PARALLEL_LEVEL is the number of
    compilers that run at a time (default: one for each core).
    """

    def run(self) -> None:
        editable = self.inplace or self.editable_mode
        if editable:
            build, prefix = ROOT / "build/cmake", ROOT / "python/qatx"
        else:
            build, prefix = Path(self.build_temp).resolve(), Path(self.build_lib).resolve() / "qatx"
        torch = find_spec("torch")
        assert torch is not None
        assert torch.origin is not None
        development = "ON" if editable else "OFF"
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(len(os.sched_getaffinity(0))))

        def cmake(*arguments: str | Path) -> None:
            subprocess.run(["cmake", *arguments], check=True)

        cmake(
            *("-S", ROOT, "-B", build, "-G", "Ninja", "--log-level=NOTICE"),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DLibTorch_ROOT={Path(torch.origin).parent}",
            "-DCMAKE_INSTALL_LIBDIR=lib",
            "-DCMAKE_INSTALL_MESSAGE=NEVER",
            "-DQATX_BUILD_PYTHON=ON",
            f"-DQATX_BUILD_TESTS={development}",
            f"-DQATX_BUILD_EXAMPLES={development}",
            f"-DQATX_RELOCATABLE={'OFF' if editable else 'ON'}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        )
        cmake("--build", build, "--parallel", jobs)
        cmake("--install", build, "--prefix", prefix, *([] if editable else ["--strip"]))


setup(
    ext_modules=[Extension("qatx._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
    install_requires=[f"torch=={TORCH_MINOR}.*", "rich>=13"],
)
