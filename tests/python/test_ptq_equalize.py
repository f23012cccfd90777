"""`qatx.ptq.equalize`."""

import copy

import pytest
import qatx
import torch
from models import Residual, learn_statistics, randomize_batch_norm
from torch import Tensor, nn


def uneven(model: nn.Module) -> nn.Module:
    """Gives the channels of every layer very different ranges, in no order."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
                factors = 10 ** torch.empty(module.weight.shape[0]).uniform_(-1, 1)
                module.weight *= factors.reshape(-1, *[1] * (module.weight.dim() - 1))
                if module.bias is not None:
                    module.bias *= factors
    return model.eval()


class MobileBlock(nn.Module):
    """Expansion, depthwise, projection."""

    def __init__(self, relu: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 8, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu1 = relu()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.relu2 = relu()
        self.project = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.expand(x)))
        return self.project(self.relu2(self.bn2(self.depthwise(x))))


MODELS = {
    "mobile": (MobileBlock, (3, 8, 8), 2),
    "grouped": (
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.LeakyReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.MaxPool2d(2)),
            *(nn.Dropout(), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            *(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 5)),
        ),
        (3, 8, 8),
        4,
    ),
    "transposed": (
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3, 2), nn.BatchNorm2d(6)),
            *(nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1)),
        ),
        (3, 6, 6),
        2,  # the transposed one with groups is read, but not divided
    ),
    "lines": (
        lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 4, 3)),
        (3, 9),
        1,
    ),
    "sequences": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 4)),
        (5, 6),
        1,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_output_stays_and_the_channels_use_the_range(name):
    make, shape, places = MODELS[name]
    model = uneven(randomize_batch_norm(make()))
    x = torch.randn(4, *shape)
    expected = model.double()(x.double())
    model.float()
    report = qatx.ptq.equalize(model)
    torch.testing.assert_close(model(x).double(), expected, rtol=1e-3, atol=1e-4)
    equalized = [row for row in report.rows if not row.note]
    assert len(equalized) == places
    # What a place wins, the next may lose a little of.
    assert sum(row.after for row in equalized) > sum(row.before for row in equalized)
    again = qatx.ptq.equalize(model)
    for row, was in zip(again.rows, report.rows, strict=True):
        assert row.after == pytest.approx(was.after, rel=1e-2) if not row.note else row == was


def test_equal_ranges_of_a_pair_are_those_of_the_paper():
    """Equation 11: s = sqrt(r1 r2) / r2, so that both ranges become sqrt(r1 r2)."""
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    first, second = (model[i].weight.detach().clone() for i in (0, 2))
    bias = model[0].bias.detach().clone()
    r1, r2 = first.abs().amax(1), second.abs().amax(0)
    s = torch.sqrt(r1 * r2) / r2
    qatx.ptq.equalize(model)
    torch.testing.assert_close(model[0].weight, nn.Parameter(first / s[:, None]))
    torch.testing.assert_close(model[0].bias, nn.Parameter(bias / s))
    torch.testing.assert_close(model[2].weight, nn.Parameter(second * s))


def test_batch_norm_is_folded_into_what_counts():
    model = randomize_batch_norm(MobileBlock()).eval()
    with torch.no_grad():
        model.bn1.weight[3] = 0.0  # a channel that is not in use
        model.project.weight[:, 5] = 0.0
    weights = model.expand.weight.detach().clone()
    gammas = (model.bn1.weight[3].item(), model.bn2.weight[5].item())
    qatx.ptq.equalize(model)
    assert torch.equal(model.expand.weight, weights)  # its batch normalization takes the scale
    assert (model.bn1.weight[3].item(), model.bn2.weight[5].item()) == gammas
    factor = (model.bn2.weight * torch.rsqrt(model.bn2.running_var + model.bn2.eps)).abs()
    made = model.depthwise.weight.flatten(1).abs().amax(1) * factor
    read = model.project.weight.abs().amax((0, 2, 3))
    used = [i for i in range(8) if i not in (3, 5)]
    torch.testing.assert_close(made[used], read[used], rtol=1e-3, atol=0.0)


def test_relu6_is_left_alone_or_replaced():
    model = uneven(randomize_batch_norm(MobileBlock(nn.ReLU6)))
    before = copy.deepcopy(model.state_dict())
    report = qatx.ptq.equalize(model)
    assert all("ReLU6 limits" in row.note for row in report.rows if "->" in row.name[1:])
    assert all(torch.equal(value, before[k]) for k, value in model.state_dict().items())
    like = MobileBlock().eval()
    like.load_state_dict(before)
    report = qatx.ptq.equalize(model, replace_relu6=True)
    assert type(model.relu1) is type(model.relu2) is nn.ReLU
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(model(x), like(x), rtol=1e-3, atol=1e-4)
    assert sum(not row.note for row in report.rows) == 2

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(nn.functional.relu6(self.a(x)))

    row = qatx.ptq.equalize(Functional(), replace_relu6=True)["a -> b"]
    assert row.note == "a ReLU6 that is not an nn.ReLU6 module limits the channels"


def test_what_must_not_be_scaled_is_left_alone():
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.d, self.e, self.f = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.g, self.h = nn.Linear(4, 4), nn.Linear(4, 4)
            self.h.weight = self.g.weight
            self.twice = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.b(torch.nn.functional.gelu(self.a(x)))
            x = x + self.c(x)
            x = self.e(self.d(x).transpose(1, 2).reshape(-1, 4, 4))
            x = self.twice(self.twice(x))
            return self.h(self.g(self.f(x)))

    model = Other().eval()
    x = torch.randn(3, 4, 4)
    expected = model(x)
    report = qatx.ptq.equalize(model)
    torch.testing.assert_close(model(x), expected)
    notes = {row.name: row.note for row in report.rows}
    assert notes["-> a"] == "its input is made by the model's input x"
    assert notes["-> b"] == "its input is made by gelu"
    assert notes["-> c"] == "b is read by add"
    assert notes["-> e"] == "its input is made by reshape"
    assert "twice is called more than once" in notes["-> twice"]
    assert notes["-> g"] == "g shares a parameter with another module"
    assert notes["-> f"] == "twice is called more than once"


def test_residual_models_stay_what_they_are():
    model = learn_statistics(randomize_batch_norm(Residual()), torch.randn(8, 3, 8, 8))
    uneven(model)
    x = torch.randn(4, 3, 8, 8)
    expected = model(x)
    report = qatx.ptq.equalize(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-3)
    assert [row.name for row in report.rows if not row.note] == ["conv1 -> conv2"]


def test_weights_with_one_scale_lose_less():
    model = uneven(randomize_batch_norm(MobileBlock()))
    data, new = torch.randn(64, 3, 8, 8), torch.randn(64, 3, 8, 8)
    spec = qatx.QuantSpec(bits=6, axis=None)
    errors = []
    with torch.no_grad():
        expected = model(new)
        for _ in range(2):
            prepared = qatx.prepare(model, qatx.QConfig(weight=spec))
            qatx.calibrate(prepared, data)
            errors.append(float((prepared(new) - expected).square().mean()))
            qatx.ptq.equalize(model)
    assert errors[1] < 0.5 * errors[0]


def test_errors():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        qatx.ptq.equalize(3)
    with pytest.raises(ValueError, match=r"call this before qatx.prepare"):
        qatx.ptq.equalize(qatx.prepare(Residual()))

    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(RuntimeError, match=r"torch.fx cannot trace Branches"):
        qatx.ptq.equalize(Branches())
