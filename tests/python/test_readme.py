"""README's Python program runs as it stands."""

import re
from pathlib import Path

import pytest
import qatx
import torch

README = Path(__file__).parents[2] / "README.md"


def test_the_program_trains_converts_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, str(README), "exec"), {})
    assert "100.0% of" in capsys.readouterr().out  # of the multiply-accumulates are in integers
    assert qatx.load(tmp_path / "model.pt")(torch.rand(2, 3, 32, 32)).shape == (2, 10)
