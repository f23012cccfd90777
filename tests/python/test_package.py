"""The wheel in an environment of its own, outside the source tree, and a C++ project on top."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

CONVERT = """
import json, sys, torch, qatx
layers = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
prepared = qatx.prepare(torch.nn.Sequential(*layers).eval())
qatx.calibrate(prepared, torch.rand(4, 3, 8, 8))
converted, report = qatx.convert(prepared, torch.rand(1, 3, 8, 8))
qatx.save(converted, sys.argv[1])
with open("/proc/self/maps") as maps:
    libraries = {line.split()[-1] for line in maps if ".so" in line}
json.dump({
    "package": qatx.__file__,
    "version": qatx.__version__,
    "cmake_prefix_path": qatx.cmake_prefix_path,
    "float_operators": [row.kind for row in report.rows if not row.integer],
    "output": qatx.load(sys.argv[1])(torch.ones(1, 3, 8, 8)).flatten().tolist(),
    "openmp": [library for library in libraries if "libgomp" in library],
    "qatx": [library for library in libraries if "libqatx" in library],
}, sys.stdout)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed; this environment's tools are on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    process = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
    return process.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps")
    run(*pip, "--wheel-dir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("qatx-*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, folder: Path) -> Path:
    """Interpreter of a new environment: this one's packages, linked, and qatx from the wheel."""
    environment = folder / "venv"
    venv.create(environment, symlinks=True)
    ours = Path(sysconfig.get_path("purelib"))
    theirs = environment / ours.relative_to(sys.prefix)
    for entry in ours.iterdir():
        if "qatx" not in entry.name:
            (theirs / entry.name).symlink_to(entry)
    interpreter = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-index")
    run(
        *pip, wheel, cwd=folder
    )  # --no-index: fails unless the linked packages meet its requirements
    return interpreter


@pytest.fixture(scope="module")
def converted(python: Path, folder: Path) -> dict[str, object]:
    """What the installed package says of itself and of the model that it saves as model.pt."""
    return json.loads(run(python, "-c", CONVERT, folder / "model.pt", cwd=folder))


def test_wheel_holds_library_headers_and_cmake_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert {
        "qatx/__init__.py",
        "qatx/_C.pyi",
        "qatx/_build_info.py",
        "qatx/_C" + sysconfig.get_config_var("EXT_SUFFIX"),
        "qatx/include/qatx/qatx.h",
        "qatx/lib/libqatx.so",
        "qatx/py.typed",
        "qatx/share/cmake/qatx/qatxConfig.cmake",
        "qatx/share/cmake/qatx/qatxConfigVersion.cmake",
        "qatx/share/cmake/qatx/qatxTargets.cmake",
    } <= names
    assert "\nRequires-Dist: torch==2." in metadata


def test_wheel_names_no_path_of_the_build_machine(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            assert str(ROOT).encode() not in archive.read(name), name


def test_installed_package_converts(python: Path, converted: dict[str, object]) -> None:
    prefix = str(python.parents[1])
    assert str(converted["package"]).startswith(prefix)
    assert [str(library).startswith(prefix) for library in converted["qatx"]] == [True]
    assert converted["float_operators"] == []
    assert len(converted["openmp"]) == 1  # a second one would fight for the cores


def test_cmake_project_finds_builds_and_runs(converted: dict[str, object], folder: Path) -> None:
    build = folder / "consumer"
    prefix = f"-DCMAKE_PREFIX_PATH={converted['cmake_prefix_path']}"
    run("cmake", "-S", ROOT / "tests/find_package", "-B", build, "-G", "Ninja", prefix, cwd=folder)
    run("cmake", "--build", build, cwd=folder)
    output = run(build / "consumer", folder / "model.pt", cwd=folder)
    assert [float(value) for value in output.split()] == converted["output"]


def test_cmake_package_refuses_another_torch(converted: dict[str, object], folder: Path) -> None:
    other = folder / "libtorch"
    (other / "share/cmake/Torch").mkdir(parents=True)
    (other / "share/cmake/Torch/TorchConfigVersion.cmake").write_text(
        'set(PACKAGE_VERSION "2.11.0")\n'
    )
    (other / "lib").mkdir()
    for name in ("torch", "torch_cpu", "c10"):
        (other / f"lib/lib{name}.so").touch()
    prefix = f"-DCMAKE_PREFIX_PATH={other};{converted['cmake_prefix_path']}"
    with pytest.raises(AssertionError) as error:
        run(
            "cmake",
            "-S",
            ROOT / "tests/find_package",
            "-B",
            folder / "refused",
            "-G",
            "Ninja",
            prefix,
            cwd=folder,
        )
    message = " ".join(str(error.value).split())
    assert "this qatx was built with LibTorch 2." in message
    assert f"but LibTorch 2.11.0 was found in {other}/lib" in message
