"""`qatx.ptq.correct_bias`."""

import copy

import pytest
import qatx
import torch
from models import Residual, learn_statistics, randomize_batch_norm
from torch import nn


def quantized(model: nn.Module, data: torch.Tensor, bits: int = 4) -> nn.Module:
    spec = qatx.QuantSpec(bits=bits, axis=0)
    model = qatx.prepare(model, qatx.QConfig(weight=spec))
    qatx.calibrate(model, data)
    return model.eval()


def outputs_of(model: nn.Module, path: str, x: torch.Tensor) -> torch.Tensor:
    """What a layer computes before its ReLU and its rounding."""
    layer = model.get_submodule(path)
    caught = []
    hook = layer.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    model(x)
    hook.remove()
    weight = layer.weight_fake_quantize(layer._deployed_weight())
    return layer._multiply(caught[0], weight, layer._deployed_bias())


@pytest.mark.parametrize("affine", [True, False])
def test_each_channel_of_each_layer_is_right_on_average(affine):
    model = Residual()
    model.bn1 = nn.BatchNorm2d(8, affine=affine)
    data = torch.rand(64, 3, 8, 8)
    learn_statistics(randomize_batch_norm(model), data).eval()
    rounded = quantized(model, data)
    before = copy.deepcopy(rounded)
    report = qatx.ptq.correct_bias(rounded, data)
    with torch.no_grad():
        stem = model.stem[:2](data)
        x = model.stem(data)
        conv1 = model.bn1(model.conv1(x))
        conv2 = model.bn2(model.conv2(torch.relu(conv1)))
        wanted = {"stem.0": stem, "conv1": conv1, "conv2": conv2, "fc": model(data)}
        for row in report.rows:
            was, now = (outputs_of(m, row.name, data) for m in (before, rounded))
            y = wanted[row.name]
            dims = [d for d in range(y.dim()) if d != 1]
            off = (now - y).mean(dims)
            assert off.abs().max() < 1e-4 * y.abs().max()
            assert off.abs().max() < 0.05 * (was - y).mean(dims).abs().max()
            error = float((now - y).square().sum() / y.square().sum())
            assert row.after == pytest.approx(error, rel=1e-3)
            assert row.after < row.before
    assert [row.name for row in report.rows] == list(wanted)


def test_a_second_time_changes_nothing_with_a_reference():
    data = torch.rand(64, 3, 8, 8)
    model = learn_statistics(randomize_batch_norm(Residual()), data).eval()
    rounded = quantized(model, data)
    qatx.ptq.correct_bias(rounded, data, reference=model)
    once = copy.deepcopy(rounded.state_dict())
    report = qatx.ptq.correct_bias(rounded, data, reference=model)
    for name, value in rounded.state_dict().items():
        torch.testing.assert_close(value, once[name], rtol=1e-3, atol=1e-4)
    assert all(row.after == pytest.approx(row.before, rel=1e-3) for row in report.rows)


def test_a_layer_without_a_bias_gets_one():
    data = torch.rand(64, 6)
    model = nn.Sequential(nn.Linear(6, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False))
    rounded = quantized(model, data, bits=2)
    qatx.ptq.correct_bias(rounded, data)
    off = (rounded(data) - model(data)).mean(0)
    assert off.abs().max() < 1e-5
    assert isinstance(rounded.get_submodule("2").bias, nn.Parameter)
    converted, _ = qatx.convert(rounded, data[:1])
    assert qatx.verify(rounded, converted, data).ok


def test_errors_take_new_biases_away():
    model = nn.Sequential(nn.Linear(6, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False))
    data = torch.rand(64, 6)
    rounded = quantized(model, data)
    calls = 0

    def fail(m: nn.Module, x: torch.Tensor) -> object:
        nonlocal calls
        calls += 1
        if calls == 5:  # of the second layer
            raise KeyError("gone")
        return m(x)

    with pytest.raises(KeyError, match="gone"):
        qatx.ptq.correct_bias(rounded, data, forward=fail)
    assert rounded.get_submodule("0").bias is None
    with pytest.raises(ValueError, match=r"correct_bias: 0: .* NaN"):
        qatx.ptq.correct_bias(rounded, data * float("inf"))
    assert rounded.get_submodule("0").bias is None
    with pytest.raises(ValueError, match="data is empty"):
        qatx.ptq.correct_bias(rounded, [])
