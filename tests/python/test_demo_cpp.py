"""The C++ demonstration trains, converts, and hands over what Python runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "build/cmake/bin/train_qat"


def run(*command: str | Path, status: int = 0) -> str:
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == status, process.stdout + process.stderr
    return process.stdout + process.stderr


@pytest.mark.slow
def test_trains_on_digits_and_hands_over_to_python(tmp_path: Path):
    digits, out = tmp_path / "digits", tmp_path / "out"
    run(sys.executable, ROOT / "examples/cpp/write_digits.py", digits)
    options = ["--no-mirror", "--epochs", "6", "--qat-epochs", "2", "--threads", "1"]
    text = run(PROGRAM, "--data", digits, "--out", out, *options)
    assert "100.0% of" in text  # of the multiply-accumulates are in integers
    summary = json.loads((out / "summary.json").read_text())
    assert summary["machine"]["cpu"]
    accuracy = {row["model"]: row["accuracy"] for row in summary["rows"]}
    assert accuracy["FP32"] > 0.8
    assert accuracy["QAT INT8"] > accuracy["FP32"] - 0.05
    text = run(sys.executable, ROOT / "examples/cpp/load_into_python.py", out)
    assert "the same class as in C++ for 360 of 360 images" in text


def test_names_what_is_wrong(tmp_path: Path):
    assert "--epochs takes a number of at least 1" in run(PROGRAM, "--epochs", "0", status=2)
    text = run(PROGRAM, "--data", tmp_path, status=1)
    assert f"{tmp_path}/train-images-idx3-ubyte.gz: cannot be opened" in text
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"no IDX file")
    assert "not an IDX file of unsigned bytes" in run(PROGRAM, "--data", tmp_path, status=1)
