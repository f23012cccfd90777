import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import qatx
import torch

PACKAGE = Path(qatx.__file__).parent


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_another_torch_is_refused_before_the_library_is_loaded():
    process = run("import sys, torch; torch.__version__ = '2.99.1+cpu'; import qatx")
    assert process.returncode == 1
    minor = ".".join(torch.__version__.split(".")[:2])
    message = process.stderr.splitlines()[-1]
    assert message.startswith(f"ImportError: qatx {qatx.__version__} was built with torch {minor}.")
    assert f"does not work with torch 2.99.1+cpu: install torch {minor}" in message


def test_a_patch_release_of_torch_is_accepted_and_the_operators_are_there():
    minor = ".".join(torch.__version__.split(".")[:2])
    process = run(
        f"import torch; torch.__version__ = '{minor}.77'; import qatx; "
        "torch.ops.qatx.fake_quantize, torch.ops.qatx.learned_scale"
    )
    assert process.returncode == 0, process.stderr


def test_version():
    assert qatx.__version__ == metadata.version("qatx")


def test_cmake_finds_the_package():
    assert (Path(qatx.cmake_prefix_path) / "qatx/qatxConfig.cmake").is_file()


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_C.pyi").is_file()


def test_public_names_exist_and_are_documented():
    for name in qatx.__all__:
        assert getattr(qatx, name)
        if name not in ("__version__", "cmake_prefix_path"):
            assert getattr(qatx, name).__doc__, name
    for name in qatx.nn.__all__:
        assert getattr(qatx.nn, name).__doc__, name


def test_the_stub_of_the_extension_is_complete():
    stub = ast.parse((PACKAGE / "_C.pyi").read_text())
    declared = {n.name for n in stub.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}
    assert declared == {name for name in vars(qatx._C) if not name.startswith("_")}
