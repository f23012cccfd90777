"""Nothing that an optimizer does makes a quantizer unusable."""

import itertools

import pytest
import torch
from qatx.nn import FakeQuantize
from quantizers import MAKERS, SHAPE, calibrated
from torch import Tensor

STEPS = 10_000
OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=10.0, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=10.0),
}
INF, NAN = float("inf"), float("nan")


def hostile_batches() -> itertools.cycle:
    """Values of every magnitude, and gradients that overflow or are no numbers."""
    values = [torch.randn(3, 4) * 10.0**power for power in (-30, -3, 0, 0, 1, 3, 30)]
    values += [torch.zeros(3, 4), torch.full((3, 4), 1e38), torch.full((3, 4), 1e-45)]
    values += [torch.tensor([[INF, -INF, 0.0, 1.0]] * 3), torch.tensor([[NAN, 1.0, 2.0, -9.0]] * 3)]
    grads = [torch.full((3, 4), g) for g in (1.0, -1.0, 1e30, INF, NAN, -INF, 3e38, 1e-45, 0.0)]
    mixed = torch.tensor([[INF, -INF, NAN, 1.0]] * 3)
    # Of lengths without a common divisor: every pair comes up.
    return itertools.cycle(itertools.product(values, [*grads, mixed, -mixed.flip(1)]))


def scale_in_use(module: FakeQuantize) -> Tensor:
    raw = module.alpha if hasattr(module, "alpha") else module.scale
    scale = torch.ops.qatx.learned_scale(raw)
    return torch.ops.qatx.power_of_two_scale(scale) if module.power_of_two else scale


@torch.no_grad()
def assert_usable(module: FakeQuantize) -> None:
    scale = scale_in_use(module)
    assert ((scale >= 2.0**-64) & (scale <= 2.0**64)).all()
    assert all(parameter.isnan().sum() == 0 for parameter in module.parameters())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["lsq", "lsq_weight", "power_of_two", "pact"])
def test_a_quantizer_survives(kind, optimizer):
    module = calibrated(MAKERS[kind]())
    assert list(module.parameters())
    update = OPTIMIZERS[optimizer](module.parameters())
    batches = hostile_batches()
    lows, highs = [], []
    for step in range(STEPS):
        x, grad = next(batches)
        update.zero_grad()
        y = module(x)  # an error where a scale is zero, negative, NaN or denormal
        y.backward(grad)
        for parameter in module.parameters():
            assert parameter.grad.isfinite().all()
        update.step()
        if step % 100 == 0:
            assert_usable(module)
            scale = scale_in_use(module).detach()
            lows.append(scale.min().item())
            highs.append(scale.max().item())
    assert_usable(module)
    assert module(torch.randn(3, 4)).isfinite().all()
    assert max(highs) > 4 * min(lows)  # the scale did move


@pytest.mark.parametrize("value", [0.0, -0.0, -3.0, 1e-45, 1e38, INF, -INF, NAN])
@pytest.mark.parametrize("kind", ["lsq", "lsq_weight", "groups", "power_of_two", "pact"])
def test_no_value_of_a_parameter_is_an_error(kind, value):
    module = calibrated(MAKERS[kind]())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)
    y = module(torch.randn(SHAPE))
    y.sum().backward()
    assert y.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("kind", ["lsq", "lsq_weight", "groups", "power_of_two", "pact"])
def test_an_optimizer_made_at_construction_moves_everything(kind):
    module = MAKERS[kind]()
    update = torch.optim.SGD(module.parameters(), lr=0.1)
    calibrated(module)
    before = [p.detach().clone() for p in module.parameters()]
    x = torch.randn(SHAPE) * 3
    (module(x) - x).square().sum().backward()
    update.step()
    assert before
    for now, then in zip(module.parameters(), before, strict=True):
        assert not torch.equal(now, then)
