"""The benchmarks run, in short, where their environment is."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-bench/bin/python"
KERNELS = ROOT / "build/cmake/bin/integer_gemm"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-bench: run `make setup-bench`"),
    pytest.mark.skipif(not KERNELS.exists(), reason="no C++ benchmarks: run `make build-bench`"),
]

INT8_CONTENDERS = [
    "qatx INT8",
    "torch FP32",
    "torch FP32 jit",
    "torch.ao INT8",
    "ONNX Runtime FP32",
    "ONNX Runtime INT8",
    "OpenVINO FP32",
    "OpenVINO INT8",
]


def results_of(benchmark: str, folder: Path) -> dict[str, Any]:
    """What a benchmark writes with --quick."""
    out = folder / "results.json"
    result = subprocess.run(
        [PYTHON, ROOT / f"benchmarks/{benchmark}.py", "--quick", "--out", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def test_every_contender_has_a_time_or_a_reason(tmp_path: Path):
    content = results_of("int8_inference", tmp_path)
    assert {"onnxruntime", "openvino"} <= content["machine"]["peers"].keys()
    cases: dict[str, list[str]] = {}
    for row in content["rows"]:
        assert row.get("reason") or row["median_ms"] > 0
        if row["case"].startswith("batch "):
            cases.setdefault(row["case"], []).append(row["contender"])
    assert set(cases) == {
        f"batch 1, {threads}: {model}"
        for threads in ("1 thread", "2 threads")
        for model in ("ResNet-18", "Text CNN")
    }
    for contenders in cases.values():
        assert contenders == INT8_CONTENDERS
    qatx = [row for row in content["rows"] if row["contender"] == "qatx INT8"]
    assert all("median_ms" in row for row in qatx if "ResNet-18" in row["case"])
    assert {target["target"] for target in content["targets"]}


def test_calibration_has_every_comparison(tmp_path: Path):
    content = results_of("calibration", tmp_path)
    assert "onnxruntime" in content["machine"]["peers"]
    settings = {row["case"].partition(": ")[0] for row in content["rows"]}
    assert settings == {
        "accuracy by method",
        *(f"random noise, {n} network" for n in ("demo", "outlier")),
        *(f"accuracy by number of samples, {n} network" for n in ("demo", "outlier")),
        *("rounding of weights", "observing a batch", "calibrating", "KL search"),
    }
    for row in content["rows"]:
        assert row.get("accuracy", row.get("median_ms")) > 0, row
        assert row.get("accuracy", 0) <= 1
    assert all(row["warned"] for row in content["rows"] if row["case"].endswith("random images"))
    names = {target["target"] for target in content["targets"]}
    assert "KL at most 0.2 points worse than min-max" in names


def test_an_unknown_model_is_named():
    result = subprocess.run(
        [PYTHON, ROOT / "benchmarks/int8_inference.py", "--models", "resnet18,alexnet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "no such model: alexnet" in result.stderr


def test_a_step_in_cpp_and_in_python_is_timed(tmp_path: Path):
    content = results_of("cpp_step", tmp_path)
    assert {row["contender"] for row in content["rows"]} == {"C++", "Python"}
    assert all(row["median_ms"] > 0 and row["peak_bytes"] > 0 for row in content["rows"])
    assert len(content["targets"]) == 4
