import os
import stat

import pytest
import qatx
import torch
from torch import nn


@pytest.fixture
def module() -> torch.jit.ScriptModule:
    return torch.jit.trace(nn.Linear(3, 2), torch.rand(1, 3))


@pytest.fixture
def file(module, tmp_path):
    path = tmp_path / "model.pt"
    qatx.save(module, path)
    return path


def test_save_and_load(module, file):
    x = torch.rand(5, 3)
    assert torch.equal(qatx.load(file)(x), module(x))
    assert torch.equal(qatx.load(str(file))(x), module(x))
    assert torch.equal(torch.jit.load(file)(x), module(x))


def test_saving_replaces_and_leaves_nothing_else(file):
    other = torch.jit.trace(nn.Linear(3, 7), torch.rand(1, 3))
    qatx.save(other, file)
    assert qatx.load(file)(torch.rand(1, 3)).shape == (1, 7)
    assert list(file.parent.iterdir()) == [file]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask


def test_a_failed_save_keeps_the_file_that_was_there(module, file, monkeypatch):
    before = file.read_bytes()

    def fail(_module, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch.jit, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        qatx.save(module, file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_save_takes_script_modules_only(tmp_path):
    with pytest.raises(TypeError, match=r"what qatx\.convert returned, got Linear"):
        qatx.save(nn.Linear(3, 2), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_save_needs_the_folder(module, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        qatx.save(module, tmp_path / "missing" / "model.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\.pt"):
        qatx.load(tmp_path / "nothing.pt")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        qatx.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all" * 100])
def test_something_else_is_named(tmp_path, content):
    path = tmp_path / "else.pt"
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"else\.pt is damaged or not a TorchScript file"):
        qatx.load(path)


def test_a_state_dict_is_no_torchscript_file(tmp_path):
    path = tmp_path / "state.pt"
    torch.save(nn.Linear(3, 2).state_dict(), path)
    with pytest.raises(RuntimeError, match=r"state\.pt is damaged or not a TorchScript file"):
        qatx.load(path)


def test_every_truncation_is_an_error(file):
    content = file.read_bytes()
    for size in range(0, len(content), 97):
        file.write_bytes(content[:size])
        with pytest.raises(RuntimeError, match=r"model\.pt is damaged"):
            qatx.load(file)


def test_an_altered_weight_is_an_error(file):
    content = file.read_bytes()
    weight = torch.jit.load(file).weight.detach().numpy().tobytes()
    at = content.index(weight)
    for offset in range(len(weight)):
        altered = bytearray(content)
        altered[at + offset] ^= 1
        file.write_bytes(altered)
        with pytest.raises(RuntimeError, match=r"checksum of .* is wrong|Bad CRC"):
            qatx.load(file)


def test_any_altered_byte_is_an_error_or_harmless(file, module):
    content = file.read_bytes()
    x = torch.rand(5, 3)
    expected = module(x)
    errors = 0
    for at in range(0, len(content), 13):
        altered = bytearray(content)
        altered[at] ^= 0xFF
        file.write_bytes(altered)
        try:
            assert torch.equal(qatx.load(file)(x), expected)
        except RuntimeError as error:
            assert str(file) in str(error)  # noqa: PT017
            errors += 1
    assert errors > 10
