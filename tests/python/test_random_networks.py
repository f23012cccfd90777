"""Random networks of every operator: no code of any layer differs from the contract.

`QATX_RANDOM_NETWORKS=1000 pytest tests/python/test_random_networks.py` takes as many seeds.
"""

import dataclasses
import io
import os
import random

import contract
import pytest
import qatx
import torch
from random_networks import RandomNetwork
from torch import Tensor, nn

SEEDS = int(os.environ.get("QATX_RANDOM_NETWORKS", "48"))


def weights(bits: int, axis: int | None = 0) -> qatx.QuantSpec:
    return qatx.QuantSpec(bits=bits, signed=True, symmetric=True, axis=axis)


def activations(bits: int, *, signed: bool, symmetric: bool) -> qatx.QuantSpec:
    return qatx.QuantSpec(bits=bits, signed=signed, symmetric=symmetric)


QCONFIGS = [
    qatx.QConfig(),
    qatx.QConfig(weight=weights(4), activation=activations(4, signed=False, symmetric=False)),
    qatx.QConfig(weight=weights(2), activation=activations(8, signed=True, symmetric=True)),
    qatx.QConfig(weight=weights(8, None), activation=activations(7, signed=True, symmetric=False)),
    qatx.QConfig(weight=weights(3, None), activation_quantizer="pact", power_of_two=True),
]


def expect(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """What the contract gives for the output and for each quantized value, by name."""
    values: dict[str, list[Tensor]] = {}

    def remember(name: str):
        return lambda _module, _inputs, output: values.setdefault(name, []).append(output)

    hooks = [
        module.register_forward_hook(remember(name))
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, qatx.nn.FakeQuantize) and module.role == "activation"
    ]
    try:
        return contract.evaluate(model, x), values
    finally:
        for hook in hooks:
            hook.remove()


def compare(
    converted: torch.jit.ScriptModule, x: Tensor, layers: dict[str, list[Tensor]], output: Tensor
) -> qatx._C.Verification:
    """The codes of the converted model with what they should stand for."""
    archive = io.BytesIO()
    torch.jit.save(converted, archive)
    comparison = qatx._C.Comparison(archive.getvalue())
    comparison.add([x], [(name, value) for name in layers for value in layers[name]], [output])
    return comparison.finish()


def check(seed: int) -> None:
    net = RandomNetwork(seed)
    model = qatx.prepare(net, QCONFIGS[seed % len(QCONFIGS)])
    qatx.calibrate(model, net.x)
    model.eval()
    converted, report = qatx.convert(model, net.x[:1])
    floats = {(row.kind, row.reason) for row in report.rows if not row.integer}
    if "bags" in net.operators:  # their indices, one after the other
        floats.discard(("aten::reshape", "input is not fake-quantized"))
    assert not floats, net.operators
    assert str(converted.graph).count("qatx::run_program") == 1, net.operators
    output, layers = expect(model, net.x)
    found = compare(converted, net.x, layers, output)
    assert any(row.elements for row in found.rows)
    assert all(row.equal for row in found.rows), f"{net.operators}\n{found}"
    assert torch.equal(converted(net.x), output), net.operators


def normalized_in_float(report: qatx.Report) -> bool:
    """Whether PyTorch normalizes, whose last bits differ from the contract's."""
    kinds = ("aten::softmax", "aten::layer_norm")
    return any(row.kind in kinds and not row.integer for row in report.rows)


def check_dynamic(seed: int) -> None:
    """Some linear layers quantize their rows themselves; what lies between may stay float."""
    net = RandomNetwork(seed)
    draw = random.Random(seed)
    linears = [name for name, layer in net.named_modules() if type(layer) is nn.Linear]
    if not linears:
        return
    dynamic = draw.sample(linears, draw.randint(1, len(linears)))
    qconfig = QCONFIGS[seed % len(QCONFIGS)]
    own = dataclasses.replace(qconfig, activation_quantizer="dynamic")
    model = qatx.prepare(net, qconfig, overrides=dict.fromkeys(dynamic, own))
    qatx.calibrate(model, net.x)
    converted, report = qatx.convert(model.eval(), net.x[:1])
    assert not [row for row in report.rows if row.kind == "aten::linear" and not row.integer]
    y, expected = converted(net.x), contract.evaluate(model, net.x)
    if normalized_in_float(report):
        assert torch.allclose(y, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
    else:
        assert torch.equal(y, expected), net.operators


@pytest.fixture(autouse=True, params=["parts", "whole"])
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples one after the other through several layers, as where a batch does not fit the second
    cache, or all together."""
    monkeypatch.setenv("QATX_L2_BYTES", "100" if request.param == "parts" else "1000000000")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, SEEDS, 8))
def test_rows_by_their_own_range(first: int):
    for seed in range(first, min(first + 8, SEEDS)):
        try:
            check_dynamic(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, SEEDS, 8))
def test_no_code_differs_from_the_contract(first: int):
    for seed in range(first, min(first + 8, SEEDS)):
        try:
            check(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
