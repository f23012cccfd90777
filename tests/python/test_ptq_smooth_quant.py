"""`qatx.ptq.smooth_quant`."""

import copy

import pytest
import qatx
import torch
from models import Residual
from torch import Tensor, nn


class Block(nn.Module):
    """A transformer's block without its attention: layer normalization, projections, MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        with torch.no_grad():  # outliers in two channels
            self.norm1.weight[2] = 40.0
            self.norm2.bias[5] = -30.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        weights = torch.softmax(self.q(y) @ self.k(y).transpose(1, 2) / 50, -1)
        x = x + self.out(weights @ self.v(y))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_the_output_stays_and_the_scales_are_those_of_the_paper(alpha):
    model = Block().eval()
    data = torch.randn(32, 6, 8)
    before = copy.deepcopy(model)
    report = qatx.ptq.smooth_quant(model, data.split(10), alpha=alpha)
    torch.testing.assert_close(model(data), before(data), rtol=1e-3, atol=1e-4)
    # Equation 4, with the largest weight of all that read the value.
    x = before.norm1(data).detach().abs().amax((0, 1))
    w = torch.cat([before.q.weight, before.k.weight, before.v.weight]).detach().abs().amax(0)
    s = x**alpha / w ** (1 - alpha)
    torch.testing.assert_close(model.norm1.weight, before.norm1.weight / s)
    torch.testing.assert_close(model.norm1.bias, before.norm1.bias / s)
    torch.testing.assert_close(model.k.weight, before.k.weight * s)
    row = report["norm1 -> q, k, v"]
    assert row.before == pytest.approx(float(x.max() / x.median()), rel=1e-5)
    if alpha == 1.0:
        assert row.after == pytest.approx(1.0)
    assert report["-> down"].note == "its input is made by gelu"
    assert report["-> out"].note == "its input is made by matmul"


def test_quantized_activations_lose_less():
    model = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 8)).eval()
    with torch.no_grad():
        model[0].weight[2] = 40.0
    data, new = torch.randn(256, 16), torch.randn(256, 16)
    errors = []
    with torch.no_grad():
        expected = model(new)
        for _ in range(2):
            prepared = qatx.prepare(model)
            qatx.calibrate(prepared, data)
            errors.append(float((prepared(new) - expected).square().mean()))
            qatx.ptq.smooth_quant(model, data)
    assert errors[1] < 0.5 * errors[0]


def test_convolutions_and_batch_norm():
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2)),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 5), nn.ReLU6(), nn.Linear(5, 2)),
    ).eval()
    with torch.no_grad():
        model[1].weight[1] = 50.0
        model[3].weight[4] *= 50.0
    data = torch.randn(32, 3, 8, 8)
    expected = model(data)
    report = qatx.ptq.smooth_quant(model, data)
    torch.testing.assert_close(model(data), expected, rtol=1e-3, atol=1e-3)
    for name in ("0 -> 3", "3 -> 6"):
        assert report[name].after < report[name].before
    assert report["6 -> 8"].note == "a ReLU6 limits the channels"
    assert report["-> 0"].note == "its input is made by the model's input input"


def test_bad_input_changes_nothing():
    model = Block().train()
    before = copy.deepcopy(model.state_dict())
    data = torch.randn(4, 6, 8)
    for kind, message, call in (
        (ValueError, "alpha must be from 0 to 1, got 2", {"data": data, "alpha": 2}),
        (ValueError, "data is empty", {"data": []}),
        (ValueError, "num_samples must be at least 1", {"data": data, "num_samples": 0}),
        (ValueError, "norm1 -> q, k, v: .*NaN", {"data": data * float("nan")}),
        (TypeError, "use the argument forward", {"data": ["x"]}),
    ):
        with pytest.raises(kind, match=message):
            qatx.ptq.smooth_quant(model, **call)
        assert all(torch.equal(value, before[k]) for k, value in model.state_dict().items())
        assert all(module.training for module in model.modules())
        assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match=r"call this before qatx.prepare"):
        qatx.ptq.smooth_quant(qatx.prepare(Residual()), data)
