"""`qatx.ptq.gptq` and `qatx.ptq.adaround` against float64 writings of the papers, and on models."""

import copy

import numpy as np
import pytest
import qatx
import torch
from models import Residual, learn_statistics, randomize_batch_norm
from qatx import _C
from qatx.nn._layer import WeightedLayer
from qatx.ptq._layer_rows import rows_of, weight_matrix
from torch import nn

METHODS = {
    "gptq": qatx.ptq.gptq,
    "adaround": lambda *a, **k: qatx.ptq.adaround(*a, **{"iterations": 200, **k}),
}


def images(n: int, channels: int = 3, size: int = 8) -> torch.Tensor:
    """Smooth, so that neighbouring inputs depend on each other."""
    coarse = torch.randn(n, channels, size // 2, size // 2)
    smooth = nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear")
    return smooth + 0.1 * torch.randn(n, channels, size, size)


def prepared(model: nn.Module, x: torch.Tensor, bits: int = 4, **options) -> nn.Module:
    spec = qatx.QuantSpec(bits=bits, **{"axis": 0, **options})
    model = qatx.prepare(model, qatx.QConfig(weight=spec, weight_range="mse"))
    qatx.calibrate(model, x)
    return model.eval()


def weighted(model: nn.Module) -> dict[str, WeightedLayer]:
    return {name: m for name, m in model.named_modules() if isinstance(m, WeightedLayer)}


def codes(layer: WeightedLayer) -> torch.Tensor:
    fq = layer.weight_fake_quantize
    scale, zero_point = fq._qparams()
    spec = fq.spec
    return torch.ops.qatx.quantize(
        layer._deployed_weight().detach(),
        scale.detach(),
        zero_point.detach(),
        spec.quant_min,
        spec.quant_max,
        spec.axis,
        group_size=spec.group_size,
    )


# ---- what a layer's rows are ---------------------------------------------------------------------

LAYERS = {
    "linear": (qatx.nn.Linear(6, 4), (5, 6)),
    "linear of sequences": (qatx.nn.Linear(6, 4), (2, 3, 6)),
    "conv2d": (qatx.nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1)), (2, 4, 7, 6)),
    "dilated, same": (qatx.nn.Conv2d(2, 3, (4, 3), padding="same", dilation=2), (2, 2, 9, 9)),
    "grouped": (qatx.nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "depthwise": (qatx.nn.Conv2d(4, 4, 3, groups=4, padding=1), (2, 4, 5, 5)),
    "conv1d": (qatx.nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
    "no batch": (qatx.nn.Conv2d(2, 3, 3), (2, 5, 5)),
    "conv-bn": (qatx.nn.ConvBn2d(2, 3, 3, padding=1), (2, 2, 5, 5)),
    "transposed": (
        qatx.nn.ConvTranspose2d(3, 2, (3, 2), (2, 3), (1, 0), (1, 2), dilation=(1, 2)),
        (2, 3, 4, 5),
    ),
    "transposed line": (
        qatx.nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2, dilation=2),
        (2, 4, 5),
    ),
    "transposed volume": (qatx.nn.ConvTranspose3d(3, 2, (1, 2, 3), 2), (2, 3, 2, 3, 4)),
    "transposed, cut": (qatx.nn.ConvTranspose2d(3, 2, 2, padding=2), (2, 3, 6, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_product_with_the_rows_is_the_layer(name):
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer).eval()
    randomize_batch_norm(layer)
    x = torch.randn(shape)
    weight = layer._deployed_weight().detach()
    y = layer._multiply(x, weight, None)
    w = weight_matrix(layer, weight)
    parts = list(rows_of(layer, x, y))
    for inputs, outputs in parts:
        torch.testing.assert_close(w @ inputs, outputs, rtol=1e-4, atol=1e-5)
    assert sum(outputs.numel() for _, outputs in parts) == y.numel()


def test_a_dynamic_layer_multiplies_its_rounded_rows():
    layer = qatx.nn.Linear(6, 4, qconfig=qatx.QConfig(activation_quantizer="dynamic"))
    x = torch.randn(5, 6)
    ((inputs, _),) = rows_of(layer, x, torch.randn(5, 4))
    rows, _ = torch.ops.qatx.dynamic_fake_quantize(x, 127)
    assert torch.equal(inputs.reshape(5, 6), rows)


def test_what_is_deployed_is_what_evaluation_computes():
    layer = randomize_batch_norm(qatx.nn.ConvBn2d(3, 5, 3, bias=True, quantize_output=False)).eval()
    with torch.no_grad():
        layer.bn.weight[2] = 0.0
    x = torch.randn(2, 3, 6, 6)
    qatx.calibrate(layer, x)
    before = copy.deepcopy(layer)
    weight = layer.weight_fake_quantize(layer._deployed_weight()).detach()
    layer._set_deployed_weight(weight)
    torch.testing.assert_close(layer._deployed_weight(), weight, rtol=1e-6, atol=1e-8)
    assert torch.equal(layer.weight[2], before.weight[2])  # a channel that gamma has switched off
    torch.testing.assert_close(layer(x), before(x), rtol=1e-4, atol=1e-5)
    change = torch.arange(5.0)
    for affine in (True, False):
        other = randomize_batch_norm(qatx.nn.ConvBn2d(3, 5, 3, affine=affine)).eval()
        bias = other._deployed_bias().detach().clone()
        other._add_to_bias(change)
        torch.testing.assert_close(other._deployed_bias(), bias + change)


# ---- the solvers, against the papers' equations --------------------------------------------------


def problem(outputs: int = 5, inputs: int = 12, rows: int = 60, bits: int = 4):
    x = torch.relu(torch.randn(rows, 4) @ torch.randn(4, inputs) + torch.randn(rows, inputs))
    w = torch.randn(1, outputs, inputs)
    error = _C.OutputError(1, outputs, inputs)
    error.add(x.reshape(rows, 1, inputs, 1), (x @ w[0].T).reshape(rows, 1, outputs, 1))
    scale = (w.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).expand_as(w).contiguous()
    return x, w, error, (scale, torch.zeros_like(w), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def gptq_of_the_paper(x, w, scale, low, high, dampening, order):
    """Frantar et al. 2022, algorithm 1, without blocks: the inverse is updated by elimination."""
    h = x.T @ x
    h = h + dampening * np.mean(np.diag(h)) * np.eye(len(h))
    w, q = w.copy(), np.zeros_like(w)
    left = list(order)
    while left:
        j, inverse = left[0], np.linalg.inv(h[np.ix_(left, left)])
        q[:, j] = np.clip(np.rint(w[:, j] / scale[:, j]), low, high) * scale[:, j]
        w[:, left] -= np.outer((w[:, j] - q[:, j]) / inverse[0, 0], inverse[0])
        left = left[1:]
    return q


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("activation_order", [False, True])
def test_gptq_is_that_of_the_paper(bits, activation_order):
    x, w, error, grid = problem(bits=bits)
    got = _C.gptq(error, w, *grid, dampening=0.01, block_size=5, activation_order=activation_order)
    a = x.double().numpy()
    order = np.argsort(-np.diag(a.T @ a), kind="stable") if activation_order else range(12)
    scale = grid[0][0].double().numpy()
    expected = gptq_of_the_paper(a, w[0].double().numpy(), scale, *grid[2:], 0.01, order)
    nearest = np.clip(np.rint(w[0].numpy() / scale), *grid[2:]) * scale
    true_error = lambda q: ((a @ (q - w[0].double().numpy()).T) ** 2).sum(0)  # noqa: E731
    keep = true_error(expected) < true_error(nearest)
    expected = np.where(keep[:, None], expected, nearest)
    np.testing.assert_allclose(got[0].numpy(), expected, rtol=1e-5, atol=1e-6)


def adaround_of_the_paper(x, w, scale, low, high, iterations, rate, regularization):
    """Nagel et al. 2020, equations 21 to 25, with autograd and torch's Adam, in float64."""
    h_matrix = x.T @ x
    nearest = (w / scale).round().clamp(low, high) * scale - w
    unit = ((nearest @ h_matrix) * nearest).sum() / w.numel()
    floor = (w / scale).floor()
    fraction = w / scale - floor
    v = (-torch.log(1.2 / (fraction + 0.1) - 1)).requires_grad_()
    rectified = lambda: (torch.sigmoid(v) * 1.2 - 0.1).clamp(0, 1)  # noqa: E731
    optimizer = torch.optim.Adam([v], lr=rate)
    for t in range(iterations):
        h = rectified()
        off = (floor + h).clamp(low, high) * scale - w
        loss = ((off @ h_matrix) * off).sum() / unit
        annealed = max(0.0, (t / iterations - 0.2) / 0.8)
        beta = 2 + 0.5 * 18 * (1 + np.cos(annealed * np.pi))
        if t / iterations >= 0.2:
            loss = loss + regularization * (1 - (2 * h - 1).abs().pow(beta)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (floor + (rectified() >= 0.5)).clamp(low, high).detach() * scale


def test_adaround_is_that_of_the_paper():
    agree = total = 0
    errors = [0.0, 0.0]
    for _ in range(4):
        x, w, error, grid = problem()
        got = _C.adaround(
            error,
            w,
            *grid,
            dampening=0.0,
            iterations=150,
            learning_rate=0.1,
            regularization=10.0,
            warm_up=0.2,
            beta=(20.0, 2.0),
        )
        a, b, scale = x.double(), w[0].double(), grid[0][0].double()
        expected = adaround_of_the_paper(a, b, scale, *grid[2:], 150, 0.1, 10.0)
        for i, q in enumerate((got[0].double(), expected)):
            errors[i] += float((a @ (q - b).T).square().sum())
        agree += int((got[0].double() - expected).abs().lt(1e-5).sum())
        total += b.numel()
    assert agree >= 0.97 * total  # in float32 single weights may settle elsewhere
    assert errors[0] <= 1.03 * errors[1]


# ---- on models -----------------------------------------------------------------------------------


def float_model() -> nn.Module:
    model = learn_statistics(randomize_batch_norm(Residual()), images(64))
    return model.eval()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options",
    [
        {"bits": 4},
        {"bits": 2},
        {"bits": 8},
        {"bits": 4, "axis": None},
        {"bits": 3, "symmetric": False},
        {"bits": 4, "axis": 1, "group_size": 3},
    ],
    ids=str,
)
def test_the_true_error_is_lower_on_new_data(method, options):
    model = nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.ReLU()),
        *(nn.Conv2d(12, 12, 1), nn.ReLU(), nn.ConvTranspose2d(12, 4, 3, stride=2)),
    )
    learn_statistics(randomize_batch_norm(model), images(64)).eval()
    data, new = images(256), images(256)
    rounded = prepared(model, data, **options)
    wanted = model(new)
    nearest = (rounded(new) - wanted).square().mean()
    report = METHODS[method](rounded, data)
    # With 8 bits, most of what is left is the rounding of activations.
    assert (rounded(new) - wanted).square().mean() < (
        1.0 if options["bits"] == 8 else 0.7
    ) * nearest
    assert all(row.after <= row.before * (1 + 1e-6) for row in report.rows)
    assert sum(row.after for row in report.rows) < sum(row.before for row in report.rows)


@pytest.mark.parametrize("method", METHODS)
def test_the_report_tells_the_true_error(method):
    """Of the only layer: what it computes is measured outside."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    x = images(64)
    rounded = prepared(model, x)
    before, wanted = rounded(x).detach(), model(x).detach()
    (row,) = METHODS[method](rounded, x).rows
    bias = model[0].bias.detach()[:, None, None]
    square = (wanted - bias).square().sum()
    for value, y in ((row.before, before), (row.after, rounded(x))):
        assert value == pytest.approx(
            float((y.detach() - wanted).square().sum() / square), rel=1e-4
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options",
    [{}, {"axis": None}, {"symmetric": False}, {"bits": 2, "narrow_range": True}, {"bits": 8}],
    ids=str,
)
def test_what_was_chosen_is_what_is_converted(method, options):
    model = float_model()
    data = images(128)
    rounded = prepared(model, data, **options)
    before = {name: codes(layer) for name, layer in weighted(rounded).items()}
    METHODS[method](rounded, data)
    changed = 0
    for name, layer in weighted(rounded).items():
        weight = layer._deployed_weight()
        in_use = layer.weight_fake_quantize(weight)
        torch.testing.assert_close(in_use, weight, rtol=1e-5, atol=1e-7)  # is on the grid
        changed += int((codes(layer) != before[name]).sum())
    assert changed > 0
    converted, report = qatx.convert(rounded, data[:1])
    if options.get("symmetric", True):
        assert report.integer_share_of_macs == 1.0
    assert qatx.verify(rounded, converted, data[:32]).ok
    # Training starts from these codes.
    trained = rounded.train()
    qatx.freeze_batch_norm(trained)
    after = {name: codes(layer) for name, layer in weighted(trained).items()}
    torch.testing.assert_close(trained(data[:8]), rounded.eval()(data[:8]), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(codes(layer), after[name]) for name, layer in weighted(rounded).items())


def test_power_of_two_scales_and_other_quantizers():
    data = images(64)
    for qconfig in (
        qatx.QConfig(weight=qatx.QuantSpec(bits=4, axis=0), power_of_two=True),
        qatx.QConfig(weight=qatx.QuantSpec(bits=4, axis=0), weight_quantizer="moving_average"),
    ):
        model = qatx.prepare(float_model(), qconfig)
        qatx.calibrate(model, data)
        report = qatx.ptq.gptq(model, data)
        assert all(row.after < row.before for row in report.rows)


def test_what_has_no_grid_is_named():
    qconfig = qatx.QConfig(weight=qatx.QuantSpec(bits=4, axis=0), weight_quantizer="dorefa")
    data = images(64)
    model = qatx.prepare(float_model(), qconfig)
    qatx.calibrate(model, data)
    before = copy.deepcopy(model.state_dict())
    report = qatx.ptq.gptq(model, data)
    assert {row.note for row in report.rows} == {"DoReFa has no scale: its codes come from tanh"}
    assert all(torch.equal(a, before[k]) for k, a in model.state_dict().items())


def test_a_layer_that_is_called_twice_and_tied_weights():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 6)
            self.b = nn.Linear(6, 6)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(input=torch.relu(self.a(x)))))

    data = torch.randn(128, 6)
    model = qatx.prepare(Twice(), qatx.QConfig(weight=qatx.QuantSpec(bits=3, axis=0)))
    qatx.calibrate(model, data)
    report = qatx.ptq.gptq(model, data)
    assert report["a"].after < report["a"].before
    assert report["b"].note == "shares the weight of a"


def test_layers_that_the_data_do_not_reach():
    model = nn.ModuleList([qatx.nn.Linear(6, 6), qatx.nn.Linear(6, 6)])
    data = torch.randn(128, 6)

    def all_of_it(m: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
        return m[1](m[0](x))

    def beginning(m: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
        return m[0](x)

    qatx.calibrate(model, data, forward=all_of_it)
    report = qatx.ptq.gptq(model, data, forward=beginning)
    assert [row.note for row in report.rows] == ["", "the data do not reach it"]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stays_behind_on_errors(method):
    model = prepared(float_model(), images(32)).train()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    run = METHODS[method]
    calls = 0

    def fail(m: nn.Module, batch: torch.Tensor) -> object:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyError("the disk is gone")
        return m(batch)

    cases = [
        (KeyError, "the disk is gone", lambda: run(model, images(8), forward=fail)),
        (ValueError, "data is empty", lambda: run(model, [])),
        (
            ValueError,
            "num_samples must be at least 1, got 0",
            lambda: run(model, [], num_samples=0),
        ),
        (TypeError, "got str; use the argument forward", lambda: run(model, ["x"])),
        (TypeError, "model must be a torch.nn.Module, got int", lambda: run(3, images(8))),
        (
            ValueError,
            "stem.0: dampening must be finite",
            lambda: run(model, images(8), dampening=-1),
        ),
        (ValueError, "call qatx.prepare first", lambda: run(Residual(), images(8))),
        (ValueError, "not calibrated", lambda: run(qatx.prepare(Residual()), images(8))),
        (ValueError, "stem.0.*NaN", lambda: run(model, images(8) * float("nan"))),
        (
            ValueError,
            r"at stem.0 there must be a weight of \(8, 3, 3, 3\), got none",
            lambda: run(model, images(8), reference=nn.Sequential(nn.Conv2d(3, 8, 3))),
        ),
    ]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message):
            call()
        assert all(torch.equal(a, before[k]) for k, a in model.state_dict().items())
        assert [module.training for module in model.modules()] == modes
        assert not any(m._forward_pre_hooks for m in model.modules())


def test_rounded_weights_need_a_reference():
    model = float_model()
    data = images(128)
    rounded = prepared(model, data)
    qatx.ptq.gptq(rounded, data)
    for again in (qatx.ptq.gptq, qatx.ptq.adaround, qatx.ptq.correct_bias):
        with pytest.raises(ValueError, match=r"rounded already.*give the argument reference"):
            again(rounded, data)
    before = (rounded(data) - model(data)).square().mean()
    qatx.ptq.correct_bias(rounded, data, reference=model)
    assert (rounded(data) - model(data)).square().mean() < before


def test_as_many_samples_as_were_asked_for():
    model = prepared(float_model(), images(64))
    other = copy.deepcopy(model)
    data = images(200)
    qatx.ptq.gptq(model, data, num_samples=100)
    qatx.ptq.gptq(other, iter(data[:100].split(10)), num_samples=95)
    for a, b in zip(weighted(model).values(), weighted(other).values(), strict=True):
        assert (codes(a) != codes(b)).float().mean() < 0.02  # float sums of other batches


def test_the_report_is_a_table():
    model = prepared(float_model(), images(64))
    text = str(qatx.ptq.gptq(model, images(64)))
    assert "conv1" in text
    assert "gptq. Before and after: squared error of the layer's output" in text
    with pytest.raises(KeyError, match="no row 'x'"):
        qatx.ptq.gptq(prepared(float_model(), images(8)), images(8))["x"]
