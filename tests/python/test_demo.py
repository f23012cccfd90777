"""The demonstration from end to end, in short, and the C++ program that is part of it."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples/python/fashion_mnist.py"
CPP_PROGRAM = ROOT / "build/cmake/bin/run_torchscript"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    result = run(sys.executable, DEMO, "--quick", "--out", out)
    assert result.returncode == 0, result.stdout + result.stderr
    return out


@pytest.mark.slow
def test_everything_is_there_and_agrees(demo: Path):
    summary = json.loads((demo / "summary.json").read_text())
    assert summary["agreement"]["converted_with_qat_model"] >= 0.9995
    assert summary["agreement"]["cpp_with_python"] == 1.0
    fp32, *integers = summary["rows"]
    assert len(integers) == 3
    assert fp32["accuracy"] > 0.5
    for row in integers:
        assert row["accuracy"] > fp32["accuracy"] - 0.05
        assert row["ratio_to_fp32"]["file_bytes"] <= 0.27
    for picture in ("training_curves.png", "weight_histograms.png"):
        assert (demo / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_cpp_program_needs_no_python_and_names_bad_files(demo: Path, tmp_path: Path):
    libraries = run("ldd", CPP_PROGRAM).stdout
    assert "libqatx.so" in libraries
    assert "libpython" not in libraries
    assert "libtorch_python" not in libraries
    model = (demo / "qat_int8.pt").read_bytes()
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(model[: len(model) // 2])
    for bad in (truncated, tmp_path / "missing.pt"):
        result = run(CPP_PROGRAM, bad, demo / "test_set.pt")
        assert result.returncode not in (0, -6, -11)  # an error, no crash
        assert bad.name in result.stderr
    result = run(CPP_PROGRAM)
    assert result.returncode != 0
    assert "usage" in result.stderr


def test_a_damaged_data_file_is_named(tmp_path: Path):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        with gzip.open(tmp_path / f"{name}-ubyte.gz", "wb") as file:
            file.write(b"no images")
    result = run(sys.executable, DEMO, "--quick", "--data", tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "error: " in result.stderr
    assert "train-images-idx3-ubyte.gz" in result.stderr
    assert not (tmp_path / "out").exists()
