"""The Python programs of README and docs run as they stand."""

import re
import subprocess
from pathlib import Path

import pytest
import qatx
import torch
from archives import records

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_the_program_trains_converts_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, str(README), "exec"), {})
    assert "100.0% of" in capsys.readouterr().out  # of the multiply-accumulates are in integers
    assert qatx.load(tmp_path / "model.pt")(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_the_guide_to_conversion_converts(capsys: pytest.CaptureFixture[str]):
    guide = ROOT / "docs/converting.md"
    block, rows = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    torch.manual_seed(0)
    exec(compile(block, str(guide), "exec"), {})
    out = capsys.readouterr().out
    assert "100.0% of" in out
    assert "Equal" in out
    exec(compile(rows, str(guide), "exec"), {})
    out = capsys.readouterr().out
    assert "100% of multiply-accumulates in integers" in out
    assert out.endswith("True\n")


def test_the_guide_to_calibration_calibrates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    guide = ROOT / "docs/calibration.md"
    (program,) = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, str(guide), "exec"), {})
    assert "Calibrated with 1,000 samples" in capsys.readouterr().out
    assert (tmp_path / "calibration.html").stat().st_size > 10_000


def test_the_guide_to_post_training_quantization_converts(
    capsys: pytest.CaptureFixture[str],
):
    guide = ROOT / "docs/ptq.md"
    (program,) = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    exec(compile(program, str(guide), "exec"), {})
    printed = capsys.readouterr().out
    assert "gptq. Before and after:" in printed
    assert "Equal" in printed.splitlines()[-1]


def test_the_guide_to_cpp_holds_its_programs():
    programs = re.findall(
        r"<!-- (\S+) -->\n```cpp\n(.*?)```", (ROOT / "docs/cpp.md").read_text(), re.DOTALL
    )
    assert [path for path, _ in programs] == [
        "examples/cpp/guide.cpp",
        "examples/cpp/calibrate_ranks.cpp",
    ]
    for path, program in programs:
        assert program == (ROOT / path).read_text()


def test_the_guide_to_cpp_trains_and_converts(tmp_path: Path):
    run = subprocess.run(
        [ROOT / "build/cmake/bin/guide"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "100.0% of" in run.stdout
    assert "Equal" in run.stdout
    assert float(run.stdout.split()[-1]) > 0.95  # accuracy
    assert (tmp_path / "model.pt").stat().st_size > 1000


def test_two_processes_calibrate_as_one_does(tmp_path: Path):
    program = ROOT / "build/cmake/bin/calibrate_ranks"

    def saved(ranks: int) -> list[dict[str, bytes]]:
        """What each rank saved."""
        folder = tmp_path / str(ranks)
        folder.mkdir()
        processes = [
            subprocess.Popen(
                [program, str(rank), str(ranks), "store"], cwd=folder, stdout=subprocess.DEVNULL
            )
            for rank in range(ranks)
        ]
        assert [process.wait() for process in processes] == [0] * ranks
        return [records(folder / f"calibrated_{rank}.pt") for rank in range(ranks)]

    (expected,) = saved(1)
    assert len(expected) > 5
    assert saved(2) == [expected] * 2
