"""The modules that quantize otherwise than LSQ, and how `QConfig` asks for them."""

import copy

import contract
import pytest
import qatx
import torch
from models import Residual, learn_statistics
from qatx import QConfig, QuantSpec
from qatx.nn import PACT, DoReFa, FakeQuantize, MovingAverage
from quantizers import ACTIVATION, MAKERS, WEIGHT, calibrated


@pytest.mark.parametrize("kind", MAKERS)
def test_state_is_fixed_from_construction_and_carried_over(kind):
    make = MAKERS[kind]
    source, target = make(), make()
    parameters = list(source.parameters())
    calibrated(source, torch.rand(3, 50))
    assert [id(p) for p in source.parameters()] == [id(p) for p in parameters]
    source.freeze()
    target.load_state_dict(source.state_dict())
    assert target.state == "frozen"
    x = torch.rand(3, 50)
    source.eval()  # no stochastic rounding
    target.eval()
    assert torch.equal(target(x), source(x))
    assert torch.equal(copy.deepcopy(source)(x), source(x))


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_moves_in_evaluation_or_when_frozen(kind):
    module = calibrated(MAKERS[kind](), torch.rand(3, 50))
    x = torch.randn(3, 50) * 100
    for change in (module.eval, lambda: module.train().freeze()):
        change()
        before = copy.deepcopy(module.state_dict())
        y = module(x)
        torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(y, module.eval()(x))


def test_pact_learns_its_clipping_point():
    module = calibrated(PACT(ACTIVATION, role="activation"), torch.tensor([0.0, 2.0]))
    assert module.alpha.item() == 2
    x = torch.tensor([-1.0, 0.0, 1.0, 1.99, 2.0, 5.0], requires_grad=True)
    y = module(x)
    assert torch.equal(y, (x.detach().clamp(0, 2) / (2 / 15)).round() * (torch.tensor(2.0) / 15))
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0, 0]
    assert module.alpha.grad.item() == 2


def test_moving_average_follows_the_range():
    module = calibrated(MovingAverage(ACTIVATION, role="activation"), torch.tensor([0.0, 15.0]))
    assert module.scale.item() == 1
    module(torch.tensor([0.0, 115.0]))
    torch.testing.assert_close(module.running_max.item(), 16.0)
    torch.testing.assert_close(module.scale.item(), 16 / 15)
    assert not list(module.parameters())
    weight = calibrated(MovingAverage(WEIGHT, role="weight", scale_shape=(2,)), torch.ones(2, 3))
    weight(torch.tensor([[7.0, 0.0], [-14.0, 3.0]]))
    assert weight.scale.tolist() == [1, 2]  # of this weight, not of an average


def test_dorefa_keeps_the_magnitude_of_each_channel():
    w = torch.randn(3, 40) * torch.tensor([[0.01], [1.0], [9.0]])
    module = calibrated(DoReFa(WEIGHT, role="weight", scale_shape=(3,)), w)
    y = module(w)
    torch.testing.assert_close(y.abs().amax(1), w.abs().amax(1))
    codes = y / (w.abs().amax(1, keepdim=True) / 15)
    torch.testing.assert_close(codes, codes.round())
    assert set(codes.round().abs().unique().tolist()) <= set(range(1, 16, 2))


def test_lsq_starts_where_the_paper_says():
    x = torch.randn(3, 4000)
    module = FakeQuantize(WEIGHT, role="weight", scale_shape=(3,), range_method="lsq")
    calibrated(module, x)
    expected = torch.minimum(2 * x.abs().mean(1) / 7**0.5, x.abs().amax(1) / 7)
    torch.testing.assert_close(module.scale.data, expected)
    relu = FakeQuantize(ACTIVATION, role="activation", range_method="lsq")
    calibrated(relu, x.relu())
    torch.testing.assert_close(relu.scale.item(), (2 * x.relu().mean() / 15**0.5).item())
    assert relu.zero_point.item() == 0
    two_sided = calibrated(FakeQuantize(ACTIVATION, role="activation", range_method="lsq"), x)
    torch.testing.assert_close(two_sided.scale.item(), ((x.max() - x.min()) / 15).item())


def test_groups():
    spec = QuantSpec(bits=4, axis=1, group_size=32)
    w = torch.randn(5, 70)
    for kind in ("min_max", "lsq"):
        module = FakeQuantize(
            spec, role="weight", scale_shape=spec.scale_shape(w.shape), range_method=kind
        )
        calibrated(module, w)
        assert module.scale.shape == (5, 3)
        group = w[2, 64:]
        expected = group.abs().max() / 7
        if kind == "lsq":
            expected = torch.minimum(expected, 2 * group.abs().mean() / 7**0.5)
        torch.testing.assert_close(module.scale[2, 2].detach(), expected)
        module(w).sum().backward()
        assert module.scale.grad.shape == (5, 3)


def test_power_of_two_scales():
    module = calibrated(
        FakeQuantize(ACTIVATION, role="activation", power_of_two=True),
        torch.tensor([0.0, 15 * 0.3]),
    )
    assert module(torch.tensor([0.25, 100.0])).tolist() == [0.25, 15 * 0.25]
    module(torch.tensor([100.0])).backward()
    torch.testing.assert_close(module.scale.grad.item(), 15 * 0.25 / 0.3 / 15**0.5)


def test_stochastic_rounding_in_training_only():
    module = calibrated(
        FakeQuantize(ACTIVATION, role="activation", stochastic_rounding=True), torch.tensor([15.0])
    )
    module.generator = torch.Generator().manual_seed(1)
    x = torch.full((10_000,), 3.25)
    first, second = module(x), module(x)
    assert set(first.unique().tolist()) == {3.0, 4.0}
    assert abs(first.mean().item() - 3.25) < 5 * 0.0044
    assert not torch.equal(first, second)
    module.generator.manual_seed(1)
    assert torch.equal(module(x), first)
    assert module.eval()(x).unique().tolist() == [3.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PACT(WEIGHT, role="activation", scale_shape=(3,)), "PACT: spec must be unsigned"),
        (lambda: PACT(ACTIVATION, role="activation", power_of_two=True), "PACT: power_of_two"),
        (lambda: DoReFa(ACTIVATION, role="weight"), "DoReFa: spec must be signed and symmetric"),
        (lambda: DoReFa(QuantSpec(), role="weight"), "at most 7 bits"),
        (lambda: DoReFa(QuantSpec(bits=4), role="activation"), 'role must be "weight"'),
        (
            lambda: MovingAverage(
                QuantSpec(axis=1, group_size=2), role="weight", scale_shape=(1, 1)
            ),
            "MovingAverage: spec must have no group_size",
        ),
    ],
)
def test_what_a_quantizer_does_not_do_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


QCONFIGS = {
    "pact": {"activation": ACTIVATION, "activation_quantizer": "pact"},
    "moving_average": {
        "weight_quantizer": "moving_average",
        "activation_quantizer": "moving_average",
    },
    "dorefa": {"weight": WEIGHT, "weight_quantizer": "dorefa"},
    "fixed": {"weight_quantizer": "fixed", "activation_quantizer": "fixed"},
    "power_of_two": {"power_of_two": True},
    "stochastic": {"stochastic_rounding": True},
    "ternary": {"weight": QuantSpec(bits=2, narrow_range=True, axis=0)},
}


@pytest.mark.parametrize("kind", QCONFIGS)
def test_a_model_trains_and_converts_to_what_it_was_trained(kind):
    torch.manual_seed(1)
    x = torch.randn(8, 3, 8, 8)
    model = qatx.prepare(learn_statistics(Residual(), x), QConfig(**QCONFIGS[kind])).train()
    qatx.calibrate(model, x)
    optimizer = torch.optim.SGD(qatx.parameter_groups(model), lr=0.01, momentum=0.9)
    before = copy.deepcopy(model.state_dict())
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    moved = {name for name, value in model.state_dict().items() if (value != before[name]).any()}
    learned = {
        "pact": "conv1.output_fake_quantize.alpha",
        "moving_average": "conv1.output_fake_quantize.scale",
        "dorefa": "conv1.output_fake_quantize.scale",
        "fixed": "conv1.weight",
        "power_of_two": "conv1.output_fake_quantize.scale",
        "stochastic": "conv1.weight_fake_quantize.scale",
        "ternary": "conv1.weight_fake_quantize.scale",
    }[kind]
    assert learned in moved
    assert ("conv1.weight_fake_quantize.scale" in moved) == (kind not in ("dorefa", "fixed"))
    model.eval()
    converted, report = qatx.convert(model, x)
    assert torch.equal(converted(x), contract.evaluate(model, x))
    assert all(row.integer for row in report.rows)


def test_pact_is_for_what_is_behind_a_relu():
    model = qatx.prepare(Residual(), QConfig(**QCONFIGS["pact"]))
    kinds = {name: type(m) for name, m in model.named_modules() if isinstance(m, FakeQuantize)}
    assert kinds["conv1.output_fake_quantize"] is PACT
    assert kinds["x_fake_quantize"] is FakeQuantize


def test_overrides_say_how_a_layer_and_what_it_reads_are_quantized():
    four = QConfig(weight=WEIGHT, activation=ACTIVATION)
    model = qatx.prepare(Residual(), four, overrides={"stem": QConfig(), "fc": QConfig()})
    bits = {name: m.spec.bits for name, m in model.named_modules() if isinstance(m, FakeQuantize)}
    assert bits["x_fake_quantize"] == bits["stem.0.weight_fake_quantize"] == 8
    assert bits["fc.weight_fake_quantize"] == bits["pool_fake_quantize"] == 8
    rest = {name for name, width in bits.items() if width == 4}
    assert rest == {
        "conv1.weight_fake_quantize",
        "conv1.output_fake_quantize",
        "conv2.weight_fake_quantize",
        "stem.0.output_fake_quantize",
        "add.output_fake_quantize",
    }


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"relu": QConfig()}, ValueError, r"overrides has no .* layer at \['relu'\]"),
        ({"conv9": QConfig()}, ValueError, r"overrides has no .* layer at \['conv9'\]"),
        ({"fc": 4}, TypeError, r"overrides\['fc'\] must be a qatx.QConfig, got 4"),
    ],
)
def test_bad_overrides(overrides, error, message):
    with pytest.raises(error, match=message):
        qatx.prepare(Residual(), overrides=overrides)


def test_group_scales_stay_float_and_say_so():
    spec = QuantSpec(bits=4, axis=1, group_size=4)
    x = torch.rand(2, 3, 8, 8)
    model = qatx.prepare(Residual().eval(), QConfig(weight=spec))
    qatx.calibrate(model, x)
    _, report = qatx.convert(model, x)
    assert "weight scales are by group" in str(report)


def test_float64_modules():
    module = calibrated(
        FakeQuantize(ACTIVATION, role="activation").double(), torch.rand(9).double()
    )
    assert module(torch.rand(9).double()).dtype == torch.float64
    model = calibrated(FakeQuantize(ACTIVATION, role="activation"), torch.rand(9))
    for dtype in (torch.bfloat16, torch.float16):
        assert model(torch.rand(9).to(dtype)).dtype == dtype
