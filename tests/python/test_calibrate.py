import copy
import math

import pytest
import qatx
import torch
from models import Residual, quantized_values
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def prepared() -> nn.Module:
    return qatx.prepare(Residual())


def scales(model: nn.Module) -> dict[str, torch.Tensor]:
    """Scales and zero points, weights' and activations'."""
    state = model.state_dict()
    return {name: state[name].clone() for name in state if "fake_quantize." in name}


def test_sets_every_scale():
    model = prepared()
    x = torch.randn(8, 3, 8, 8)
    qatx.calibrate(model, x)
    states = {m.state for m in model.modules() if isinstance(m, qatx.nn.FakeQuantize)}
    assert states == {"train"}
    torch.testing.assert_close(model.x_fake_quantize.scale.item(), (x.max() - x.min()).item() / 255)
    conv = model.conv1
    factor = conv.bn.weight / (conv.bn.running_var + conv.bn.eps).sqrt()
    folded = (conv.weight * factor[:, None, None, None]).detach()
    torch.testing.assert_close(
        conv.weight_fake_quantize.scale.data, folded.abs().amax((1, 2, 3)) / 127
    )


def test_activations_are_observed_in_float_and_in_evaluation_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 4, 3))
    x = torch.randn(8, 3, 8, 8)
    prepared = qatx.prepare(model.train())
    report = qatx.calibrate(prepared, x)
    y = model[:2].eval()(x)
    assert report["0"].min == pytest.approx(y.min().item())
    assert report["0"].max == pytest.approx(y.max().item())


def test_the_forms_of_data_are_equal():
    x, labels = torch.randn(6, 3, 8, 8), torch.arange(6)
    results = []
    for data in (
        x,
        [x[:2], x[2:]],
        ((batch,) for batch in x.split(2)),
        [[x, labels]],
        DataLoader(TensorDataset(x, labels), batch_size=4),
        [{"image": x}],
    ):
        torch.manual_seed(0)
        model = prepared()
        forward = (
            (lambda model, batch: model(batch["image"]))
            if isinstance(data, list) and isinstance(data[0], dict)
            else None
        )
        qatx.calibrate(model, data, forward=forward)
        results.append(scales(model))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-6, atol=1e-6)


def test_order_of_batches_does_not_matter():
    model = prepared()
    batches = [torch.randn(2, 3, 8, 8) * k for k in (1, 5, 2)]
    qatx.calibrate(model, batches)
    first = scales(model)
    qatx.calibrate(model, batches[::-1])
    torch.testing.assert_close(scales(model), first, rtol=0, atol=0)


def test_calibrating_again_forgets():
    model = prepared()
    x = torch.randn(2, 3, 8, 8)
    qatx.calibrate(model, x)
    first = scales(model)
    qatx.calibrate(model, 10 * x)
    assert model.x_fake_quantize.scale > 9 * first["x_fake_quantize.scale"]
    qatx.calibrate(model, x)
    torch.testing.assert_close(scales(model), first, rtol=0, atol=0)


def test_modes_and_gradients_are_restored():
    model = prepared().train()
    model.conv1.eval()
    modes = [module.training for module in model.modules()]
    seen = []

    def forward(model, x):
        seen.append((model.training, model.conv2.training, torch.is_grad_enabled()))
        model(x)

    qatx.calibrate(model, torch.rand(2, 3, 8, 8), forward=forward)
    assert seen == [(False, False, False)]
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


def failing_batches():
    yield torch.rand(2, 3, 8, 8)
    raise OSError("the disk is gone")


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (failing_batches, OSError, "the disk is gone"),
        (lambda: [torch.rand(2, 5, 8, 8)], RuntimeError, "channels"),
        (lambda: [torch.rand(2, 3, 8, 8), "image"], TypeError, r"batch must be a tensor.* got str"),
        (lambda: [()], TypeError, "got tuple"),
        (lambda: [{"x": 1}], TypeError, "got dict; use the argument forward"),
        (list, ValueError, "data is empty; give at least one batch"),
        (
            lambda: torch.full((2, 3, 8, 8), math.nan),
            ValueError,
            "x_fake_quantize: no finite value was observed",
        ),
        (
            lambda: torch.rand(2, 3, 8, 8).double(),
            TypeError,
            r"input must be torch.float32, got torch\.float64",
        ),
    ],
)
def test_failure_leaves_everything_as_it_was(data, error, message, calibrated):
    model = prepared().train()
    if calibrated:
        qatx.calibrate(model, torch.rand(2, 3, 8, 8))
        model.conv1.output_fake_quantize.freeze()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        qatx.calibrate(model, data())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0, equal_nan=True)
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()
    frozen = model.conv1.output_fake_quantize.scale
    assert frozen.requires_grad != calibrated


def test_needs_something_to_calibrate():
    with pytest.raises(ValueError, match=r"nothing to calibrate; call qatx\.prepare first"):
        qatx.calibrate(Residual(), torch.rand(2, 3, 8, 8))


def test_a_layer_that_data_does_not_reach_is_named():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = qatx.nn.Linear(2, 2), qatx.nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(
        ValueError, match=r"unused\.weight_fake_quantize: no finite value .* 2 of 2"
    ):
        qatx.calibrate(Branch(), torch.rand(3, 2))


def test_constant_and_zero_data_give_a_model_that_works():
    for x in (torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), -2.0)):
        model = prepared()
        qatx.calibrate(model, x)
        assert model.eval()(x).isfinite().all()
        assert torch.equal(model.x_fake_quantize(x), x)


def test_names_of_what_is_quantized_are_names_in_errors():
    assert "x_fake_quantize" in quantized_values(prepared())


@pytest.mark.parametrize("method", ["min_max", "moving_average", "percentile", "mse", "kl", "best"])
def test_method_is_for_activations(method):
    x = torch.randn(100, 3, 8, 8)
    x[0, 0, 0, 0] = 20.0  # which is not worth keeping with 4 bits
    four = qatx.QConfig(activation=qatx.QuantSpec(bits=4, signed=False, symmetric=False))
    reference, model = (qatx.prepare(Residual(), four) for _ in range(2))
    model.load_state_dict(reference.state_dict())
    qatx.calibrate(reference, x)
    report = qatx.calibrate(model, x, method=method)
    weights = {name for name in scales(model) if "weight_fake_quantize" in name}
    for name in weights:
        assert torch.equal(scales(model)[name], scales(reference)[name])
    assert report["x_fake_quantize"].method == method
    ratio = model.x_fake_quantize.scale / reference.x_fake_quantize.scale
    assert (ratio == 1) if method == "min_max" else (ratio < 0.8)


def test_qconfig_says_how_to_choose_ranges():
    qconfig = qatx.QConfig(weight_range="mse", activation_range="percentile")
    report = qatx.calibrate(qatx.prepare(Residual(), qconfig), torch.randn(8, 3, 8, 8))
    assert {(row.role, row.method) for row in report.rows} == {
        ("weight", "mse"),
        ("activation", "percentile"),
    }
    four = qatx.QConfig(weight=qatx.QuantSpec(bits=4, axis=0))
    report = qatx.calibrate(qatx.prepare(Residual(), four), torch.randn(8, 3, 8, 8))
    assert {(row.role, row.method) for row in report.rows} == {
        ("weight", "lsq"),
        ("activation", "min_max"),
    }


def test_options_reach_the_methods():
    x = torch.randn(50, 3, 8, 8)
    model = prepared()
    highs = []
    for percentile in (80.0, 99.0):
        report = qatx.calibrate(model, x, method="percentile", percentile=percentile)
        highs.append(float(report["x_fake_quantize"].choice.high))
        assert highs[-1] == pytest.approx(x.flatten().quantile(percentile / 100).item(), abs=0.01)
    highs = []
    for norm in (1.0, 4.0):
        report = qatx.calibrate(model, x, method="mse", norm=norm)
        highs.append(report["x_fake_quantize"].choice.high)
    assert highs[0] < highs[1]


@pytest.mark.parametrize("data", ["tensor", "batches", "loader"])
@pytest.mark.parametrize(("num_samples", "seen"), [(None, 10), (4, 4), (5, 6), (99, 10)])
def test_number_of_samples(data, num_samples, seen):
    x = torch.rand(10, 3, 8, 8)
    given = {
        "tensor": x,
        "batches": iter(x.split(2)),
        "loader": DataLoader(TensorDataset(x), batch_size=2),
    }[data]
    report = qatx.calibrate(prepared(), given, num_samples=num_samples)
    assert report.samples == (num_samples if data == "tensor" and num_samples == 5 else seen)
    assert report["x_fake_quantize"].count == report.samples * 3 * 64


def test_a_tensor_is_fed_in_batches():
    sizes = []

    def forward(model, x):
        sizes.append(len(x))
        model(x)

    qatx.calibrate(prepared(), torch.rand(150, 3, 8, 8), forward=forward)
    assert sizes == [64, 64, 22]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "entropy"}, "method must be one of min_max, moving_average.* got 'entropy'"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"percentile": 30.0, "method": "percentile"}, "percentile must be more than 50"),
        ({"norm": 0.0, "method": "mse"}, "norm must be from 1 to 10"),
    ],
)
def test_bad_arguments_change_nothing(arguments, message):
    model = prepared()
    qatx.calibrate(model, torch.rand(2, 3, 8, 8))
    before = scales(model)
    with pytest.raises(ValueError, match=message):
        qatx.calibrate(model, torch.rand(2, 3, 8, 8) * 2, **arguments)
    torch.testing.assert_close(scales(model), before, rtol=0, atol=0)


def test_progress_goes_to_the_standard_error_output(capfd):
    qatx.calibrate(prepared(), torch.rand(2, 3, 8, 8))
    assert capfd.readouterr() == ("", "")
    qatx.calibrate(prepared(), torch.rand(2, 3, 8, 8), progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Calibrating" in err


def test_a_calibration_goes_on_from_a_state_dict():
    def fresh() -> qatx.nn.FakeQuantize:
        return qatx.nn.FakeQuantize(qatx.QConfig().activation, role="activation")

    first, other, whole = fresh(), fresh(), fresh()
    a, b = torch.randn(100), torch.randn(100) * 3
    first.begin_calibration()
    first(a)
    other.load_state_dict(first.state_dict())
    assert other.state == "calibrate"
    other(b)
    whole.begin_calibration()
    whole(b)
    whole(a)
    for module in (other, whole):
        module.finish_calibration("kl")
    torch.testing.assert_close(other.state_dict(), whole.state_dict(), rtol=0, atol=0)
    state = first.state_dict()
    state["_extra_state"] = state["_extra_state"][:-8]
    with pytest.raises(ValueError, match=r"must hold .* observed bytes"):
        fresh().load_state_dict(state)


def test_a_calibrated_model_keeps_no_histograms():
    model = prepared()
    qatx.calibrate(model, torch.rand(2, 3, 8, 8))
    modules = [m for m in model.modules() if isinstance(m, qatx.nn.FakeQuantize)]
    assert all(m.observer is None and m.last_weight is None for m in modules)
    extra = [v for name, v in model.state_dict().items() if name.endswith("_extra_state")]
    assert extra
    assert all(v.numel() == 1 for v in extra)
