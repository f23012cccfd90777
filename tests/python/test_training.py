import copy
import math

import pytest
import qatx
import torch
from models import Residual, learn_statistics
from torch import nn


def test_weight_decay_reaches_weights_only():
    model = qatx.prepare(Residual())
    decayed, others = qatx.parameter_groups(model, weight_decay=0.25)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.25, 0.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    weights = {"stem.0.weight", "conv1.weight", "conv2.weight", "fc.weight"}
    assert {names[p] for p in decayed["params"]} == weights
    assert {names[p] for p in others["params"]} == set(names.values()) - weights
    assert any("scale" in names[p] for p in others["params"])


def test_groups_make_an_optimizer():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(qatx.parameter_groups(model, weight_decay=0.5), lr=1.0)
    before = copy.deepcopy(model.state_dict())
    (model(torch.zeros(1, 2)) * 0).sum().backward()
    optimizer.step()
    assert torch.equal(model.weight, before["weight"] / 2)
    assert torch.equal(model.bias, before["bias"])


def test_what_needs_no_gradient_is_left_out():
    model = qatx.prepare(
        Residual(), qatx.QConfig(weight_quantizer="fixed", activation_quantizer="fixed")
    )
    groups = qatx.parameter_groups(model)
    assert sum(len(group["params"]) for group in groups) == len(list(Residual().parameters()))


@pytest.mark.parametrize("weight_decay", [-1e-4, math.nan, math.inf])
def test_bad_weight_decay(weight_decay):
    with pytest.raises(ValueError, match=f"at least 0, got {weight_decay}"):
        qatx.parameter_groups(nn.Linear(2, 2), weight_decay=weight_decay)


class WithFloatBatchNorm(nn.Module):
    """Its first batch normalization folds, its second does not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.bn2 = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn2(torch.sigmoid(self.bn1(self.conv(x))))


def test_frozen_batch_norm_neither_moves_nor_looks_at_the_batch():
    model = qatx.prepare(WithFloatBatchNorm())
    x = torch.randn(4, 3, 8, 8)
    qatx.calibrate(model, x)
    model.train()(x)
    qatx.freeze_batch_norm(model)
    qatx.freeze_batch_norm(model)  # twice is once
    assert len(model.bn2._forward_pre_hooks) == 1
    before = copy.deepcopy(dict(model.named_buffers()))
    expected = model.eval()(x)
    assert torch.equal(model.train()(x), expected)
    torch.testing.assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)
    model.train()(x).square().mean().backward()
    for bn in (model.conv.bn, model.bn2):
        assert bn.weight.grad.abs().max() > 0
    assert torch.equal(copy.deepcopy(model).train()(x), expected)


def test_training_recovers_what_two_bits_lose():
    x = torch.randn(32, 3, 8, 8)
    float_model = learn_statistics(Residual(), x).eval()
    with torch.no_grad():
        target = float_model(x)
    spec = {"weight": qatx.QuantSpec(bits=2, axis=0)}
    model = qatx.prepare(float_model, qatx.QConfig(**spec)).train()
    qatx.calibrate(model, x)
    optimizer = torch.optim.Adam(qatx.parameter_groups(model), lr=0.01)

    def error() -> float:
        with torch.no_grad():
            return (model.eval()(x) - target).square().mean().item()

    before = error()
    for step in range(30):
        if step == 20:
            qatx.freeze_batch_norm(model)
        model.train()
        optimizer.zero_grad()
        (model(x) - target).square().mean().backward()
        optimizer.step()
    assert error() < 0.5 * before
