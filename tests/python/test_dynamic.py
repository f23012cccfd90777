"""Linear layers that quantize each row by its own range: the operator, training, conversion."""

import math

import contract
import pytest
import qatx
import torch
from test_convert_operators import convert_exactly
from torch import Tensor, nn
from torch.nn import functional as F

DYNAMIC = qatx.QConfig(activation_quantizer="dynamic")
WIDTH, HEADS = 24, 3


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def quantize_one(row: list[float], quant_max: int) -> tuple[list[float], float]:
    """The definition, for one row of float32 numbers."""
    largest = max((abs(x) for x in row if math.isfinite(x)), default=0.0)
    f32 = lambda x: float(torch.tensor(x, dtype=torch.float64).float())  # noqa: E731
    scale = f32(min(max(largest / quant_max, 2.0**-126), 2.0**126)) if largest else 1.0
    inverse = f32(1 / scale)
    values = []
    for x in row:
        scaled = f32(x * inverse)
        if math.isnan(scaled):
            values.append(math.nan)
            continue
        code = round(scaled) if math.isfinite(scaled) else math.copysign(math.inf, scaled)
        values.append(f32(min(max(code, -quant_max), quant_max) * scale))
    return values, scale


ROWS = {
    "ordinary": [0.1, -2.5, 1.3, 0.0, -0.7],
    "ties": [127.0, 0.5, 1.5, -2.5, 2.5],
    "zeros": [0.0, -0.0, 0.0, 0.0, 0.0],
    "NaN": [1.0, math.nan, -3.0, 0.5, 2.0],
    "infinite": [math.inf, 1.0, -math.inf, 0.25, -2.0],
    "nothing finite": [math.inf, -math.inf, math.nan, math.inf, math.inf],
    "denormal": [1e-40, -3e-41, 0.0, 5e-45, 1e-41],
    "huge": [3.4e38, -3.0e38, 1e30, 0.0, 1.0],
}


@pytest.mark.parametrize("quant_max", [127, 7, 1])
def test_each_row_has_its_own_scale(quant_max: int):
    x = torch.tensor(list(ROWS.values()))
    y, scale = torch.ops.qatx.dynamic_fake_quantize(x, quant_max)
    for name, row, values, s in zip(ROWS, x.tolist(), y, scale, strict=True):
        expected, expected_scale = quantize_one(row, quant_max)
        assert s == expected_scale, name
        assert torch.equal(values.nan_to_num(123.0), torch.tensor(expected).nan_to_num(123.0)), name


def test_rows_lie_along_the_last_dimension():
    x = torch.randn(2, 3, 5, 7)
    y, scale = torch.ops.qatx.dynamic_fake_quantize(x, 127)
    assert scale.shape == (2, 3, 5)
    alone, own = torch.ops.qatx.dynamic_fake_quantize(x[1, 2, 3], 127)
    assert own.shape == ()
    assert torch.equal(y[1, 2, 3], alone)
    assert torch.equal(scale[1, 2, 3], own)


@pytest.mark.parametrize("quant_max", [0, 128, -1])
def test_a_wrong_quant_max_is_an_error(quant_max: int):
    with pytest.raises(ValueError, match=f"quant_max must be from 1 to 127, got {quant_max}"):
        torch.ops.qatx.dynamic_fake_quantize(torch.randn(2, 3), quant_max)


def test_integers_are_an_error():
    with pytest.raises(TypeError, match="x must be float32, bfloat16, float16 or float64"):
        torch.ops.qatx.dynamic_fake_quantize(torch.ones(2, 3, dtype=torch.int64), 7)


def test_gradients_go_straight_through():
    x = torch.tensor([[0.3, -5.0, 2.0], [math.nan, 1.0, -math.inf]], requires_grad=True)
    y, _ = torch.ops.qatx.dynamic_fake_quantize(x, 7)
    g = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    (grad,) = torch.autograd.grad(y, x, g)
    assert torch.equal(grad, torch.tensor([[1.0, 2.0, 3.0], [0.0, 5.0, 0.0]]))


def test_a_linear_layer_multiplies_quantized_rows():
    torch.manual_seed(0)
    layer = qatx.nn.Linear(6, 4, qconfig=DYNAMIC, relu=True, quantize_output=False)
    x = torch.randn(5, 6)
    qatx.calibrate(layer, x)
    rows, _ = torch.ops.qatx.dynamic_fake_quantize(x, 127)
    weight = layer.weight_fake_quantize(layer.weight)
    assert torch.equal(layer(x), F.relu(F.linear(rows, weight, layer.bias)))
    assert "dynamic=True" in repr(layer)


def test_training_with_quantized_rows_learns():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    bits = qatx.QuantSpec(bits=4, signed=True, symmetric=True)
    weight = qatx.QuantSpec(bits=4, signed=True, symmetric=True, axis=0)
    model = qatx.prepare(
        net, qatx.QConfig(weight=weight, activation=bits, activation_quantizer="dynamic")
    )
    x = torch.randn(256, 8)
    target = (x[:, :1] * x[:, 1:2]).tanh()
    qatx.calibrate(model, x)
    optimizer = torch.optim.Adam(qatx.parameter_groups(model), lr=0.01)
    losses = []
    for _ in range(100):
        loss = F.mse_loss(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


class Transformer(nn.Module):
    """Layers that normalize first, as language models have them."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(layers))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 11, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.gate, self.up = nn.Linear(WIDTH, 40), nn.Linear(WIDTH, 40)
        self.down = nn.Linear(40, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(y.transpose(1, 2).flatten(2))
        z = self.norm2(x)
        return x + self.down(F.silu(self.gate(z)) * self.up(z))


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_all_linear_layers_of_a_transformer_run_in_integers(bits: int):
    torch.manual_seed(bits)
    weight = qatx.QuantSpec(bits=bits, signed=True, symmetric=True, axis=0)
    model = qatx.prepare(
        Transformer().eval(), qatx.QConfig(weight=weight, activation_quantizer="dynamic")
    )
    quantizers = [m for m in model.modules() if isinstance(m, qatx.nn.FakeQuantize)]
    assert {m.role for m in quantizers} == {"weight"}
    x = torch.randn(2, 9, WIDTH)
    qatx.calibrate(model, x)
    converted, report = qatx.convert(model, x)
    linears = [row for row in report.rows if row.kind == "aten::linear"]
    assert len(linears) == 11
    assert all(row.integer for row in linears)
    assert not any(row.macs for row in report.rows if row not in linears)
    longer = torch.randn(3, 13, WIDTH)
    with torch.no_grad():
        trained = model(longer)
    difference = (converted(longer) - trained).abs().max() / trained.abs().max()
    assert difference < 0.02
    verification = qatx.verify(model, converted, [x])
    assert verification.ok
    assert verification.verdict.startswith("Equal as far as the outputs tell")
    with torch.no_grad():
        model.head.weight.mul_(1.5)
    assert not qatx.verify(model, converted, [x]).ok


def test_tokens_do_not_change_each_other():
    torch.manual_seed(2)
    model = qatx.prepare(nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 5)), DYNAMIC)
    x = torch.randn(1, 7, 6)
    qatx.calibrate(model, x)
    converted, report = qatx.convert(model.eval(), x)
    assert report.integer_share_of_macs == 1.0
    assert str(converted.graph).count("qatx::run_program") == 1
    expected = converted(x)
    for special in (math.nan, math.inf, 1e30):
        changed = x.clone()
        changed[0, 3, 2] = special
        y = converted(changed)
        others = [t for t in range(7) if t != 3]
        assert torch.equal(y[0, others], expected[0, others])
        assert y[0, 3].isnan().all() == math.isnan(special)
        with torch.no_grad():
            assert torch.allclose(y, model(changed), rtol=1e-4, equal_nan=True)


class Mixed(nn.Module):
    """A linear layer between quantized values, whose input others read, too."""

    def __init__(self, function=None) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 12)
        self.last = nn.Linear(12, 5)
        self.function = function or (lambda x: x)

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self.first(x))
        return self.last(F.relu(self.second(y)) + y)


@pytest.mark.parametrize("sizes", [(4,), (4, 5), (4, 2, 3), (4, 2, 2, 3)], ids=str)
@pytest.mark.parametrize("name", ["second", "last", "first"])
def test_one_layer_among_others(name: str, sizes: tuple[int, ...]):
    torch.manual_seed(3)
    prepared = qatx.prepare(Mixed(F.gelu).eval(), overrides={name: DYNAMIC})
    x = torch.randn(*sizes, 6)
    qatx.calibrate(prepared, x)
    converted, report = qatx.convert(prepared, x[:1])
    assert [row.reason for row in report.rows if not row.integer] == []
    expected = contract.evaluate(prepared, x)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert torch.equal(converted(x), expected)


@pytest.mark.parametrize("function", [torch.sigmoid, lambda x: x.flatten(1).unflatten(1, (2, 12))])
def test_what_makes_the_rows_stays_in_the_program(function):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(function(self.first(x)))

    torch.manual_seed(4)
    prepared = qatx.prepare(Net().eval(), overrides={"last": DYNAMIC})
    x = torch.randn(3, 2, 6)
    qatx.calibrate(prepared, x)
    converted, report = qatx.convert(prepared, x)
    assert report.integer_share_of_macs == 1.0
    assert str(converted.graph).count("qatx::run_program") == 1
    assert torch.equal(converted(x), contract.evaluate(prepared, x))


def test_convolutions_go_on_with_scales_of_their_own():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    convert_exactly(model, torch.randn(2, 3, 6, 6), qconfig=DYNAMIC)
    prepared = qatx.prepare(model, DYNAMIC)
    assert isinstance(getattr(prepared, "input_fake_quantize", None), qatx.nn.FakeQuantize)


class Rows(nn.Module):
    """Rows that something else than a linear layer reads, beside one."""

    def __init__(self, function) -> None:
        super().__init__()
        self.fc = qatx.nn.Linear(6, 4, qconfig=DYNAMIC, quantize_output=False)
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(x), self.function(*torch.ops.qatx.dynamic_fake_quantize(x, 7))


@pytest.mark.parametrize("sizes", [(5, 6), (2, 5, 6), (2, 5, 3, 6), (2, 1, 2, 3, 6)], ids=str)
def test_other_readers_get_the_values_of_the_rows(sizes: tuple[int, ...]):
    x = torch.randn(sizes)
    model = Rows(lambda y, _: y.exp())
    qatx.calibrate(model, x)
    converted, report = qatx.convert(model.eval(), x)
    rows = [row for row in report.rows if row.kind == "qatx::dynamic_fake_quantize"]
    assert [row.integer for row in rows] == [True, True]
    assert torch.equal(converted(x)[1], model(x)[1])


def test_scales_that_are_used_stay_float():
    x = torch.randn(2, 6)
    model = Rows(lambda y, scale: y / scale.unsqueeze(-1))
    qatx.calibrate(model, x)
    converted, report = qatx.convert(model.eval(), x)
    assert "its scales are used" in {row.reason for row in report.rows}
    assert torch.equal(converted(x)[1], model(x)[1])
