"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest
import qatx
import torch
from models import Residual

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(qatx.__path__, "qatx.")
    if not name.endswith(("_C", "_build_info"))
]


@pytest.mark.parametrize("name", ["qatx", *MODULES])
def test_examples(name, tmp_path):
    x = torch.rand(2, 3, 32, 32)
    model = qatx.prepare(Residual())
    qatx.calibrate(model, x)
    names = {
        "torch": torch,
        "qatx": qatx,
        "model": model,
        "float_model": Residual(),
        "converted": qatx.convert(model, x)[0],
        "batches": [x],
        "example_inputs": x,
        "path": tmp_path / "model.pt",
    }
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder().find(module, name, module, globs=names):
        runner.run(test)
    assert runner.summarize().failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    functions = (qatx.prepare, qatx.calibrate, qatx.convert, qatx.parameter_groups, qatx.verify)
    for function in functions:
        assert any(test.examples for test in finder.find(function)), function
