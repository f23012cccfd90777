import copy
import math

import pytest
import qatx
import torch
from models import Residual, randomize_batch_norm
from qatx import QuantSpec
from qatx.nn import FakeQuantize
from torch import Tensor, nn


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = qatx.prepare(randomize_batch_norm(Residual()))
    qatx.calibrate(model, torch.randn(32, 3, 8, 8))
    return model


@pytest.fixture(scope="module")
def converted(trained):
    return qatx.convert(trained, torch.randn(1, 3, 8, 8))[0]


def activation_quantizers(model):
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, FakeQuantize) and module.role == "activation"
    ]


def test_a_converted_model_computes_what_the_trained_one_does(trained, converted):
    torch.manual_seed(1)
    data = [(torch.randn(16, 3, 8, 8), torch.zeros(16)) for _ in range(2)]
    result = qatx.verify(trained, converted, data)
    assert {row.name for row in result.rows} == set(activation_quantizers(trained))
    assert result.ok
    assert result.rows[0].elements == 2 * 16 * 3 * 8 * 8
    assert all(row.elements > 0 and row.rounding_only for row in result.rows)
    assert result.outputs_sqnr > 30
    assert result.verdict.startswith("Equal")
    assert result.rows[0].name in str(result)
    assert result.verdict in str(result).replace("\n", " ")


def test_another_weight_is_found_where_it_is(trained, converted):
    other = copy.deepcopy(trained)
    with torch.no_grad():
        other.conv1.weight.mul_(-1)
    result = qatx.verify(other, converted, torch.randn(4, 3, 8, 8))
    rows = {row.name: row for row in result.rows}
    assert rows["stem.0.output_fake_quantize"].rounding_only
    assert not rows["conv1.output_fake_quantize"].rounding_only
    assert rows["conv1.output_fake_quantize"].sqnr < 20
    assert not result.ok
    assert "first at conv1.output_fake_quantize" in result.verdict


def test_codes_are_counted():
    class Scale(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.quantize = FakeQuantize(
                QuantSpec(signed=False, symmetric=False), role="activation"
            )
            self.quantize.begin_calibration()
            self.quantize(torch.tensor([0.0, 255 * scale]))
            self.quantize.finish_calibration()

        def forward(self, x: Tensor) -> Tensor:
            return self.quantize(x)

    x = torch.tensor([0.0, 1.0, 2.0, 3.0])
    converted, _ = qatx.convert(Scale(1.0), x)
    row = qatx.verify(Scale(1.0), converted, x).rows[0]
    assert (row.elements, row.different, row.largest, row.sqnr) == (4, 0, 0, math.inf)
    row = qatx.verify(Scale(4.0), converted, x).rows[0]  # 0, 0, 0 or 4, 4: rint(0.5) is 0
    assert (row.elements, row.different, row.largest) == (4, 3, 2)
    assert row.sqnr == pytest.approx(10 * math.log10(16 / (1 + 4 + 1)))


def test_one_quantizer_in_two_places():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantize = FakeQuantize(QuantSpec(), role="activation")

        def forward(self, x: Tensor) -> Tensor:
            return self.quantize(torch.relu(self.quantize(x)) * -1)

    model = Twice()
    model.quantize.begin_calibration()
    model.quantize(torch.tensor([-2.0, 2.0]))
    model.quantize.finish_calibration()
    x = torch.linspace(-2, 2, 50)
    converted, _ = qatx.convert(model, x)
    (row,) = qatx.verify(model, converted, x).rows
    assert (row.elements, row.different) == (100, 0)


def test_a_quantizer_that_layers_share():
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(3, 4, size, padding="same") for size in (1, 3))
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(torch.cat([layer(x) for layer in self.layers], 1))
            return y

    torch.manual_seed(0)
    model = qatx.prepare(Joined())
    x = torch.randn(2, 3, 6, 6)
    qatx.calibrate(model, x)
    first, second = model.layers.children()
    assert first.output_fake_quantize is second.output_fake_quantize is not None
    converted, _ = qatx.convert(model, x)
    rows = qatx.verify(model, converted, x).rows
    assert [(row.elements, row.different) for row in rows] == [(216, 0), (576, 0)]


def test_what_stays_float_is_said():
    class PerChannel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantize = FakeQuantize(QuantSpec(axis=1), role="activation", scale_shape=(3,))

        def forward(self, x: Tensor) -> Tensor:
            return self.quantize(x)

    model, x = PerChannel(), torch.randn(2, 3)
    qatx.calibrate(model, x)
    result = qatx.verify(model, qatx.convert(model, x)[0], x)
    assert result.rows[0].elements == 0
    assert "not in integers" in str(result)
    assert "Nothing runs in integers" in result.verdict


def test_the_model_is_left_alone(trained, converted):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    trained.train()
    qatx.verify(trained, converted, torch.randn(2, 3, 8, 8))
    assert trained.training
    assert not any(module._forward_hooks for module in trained.modules())
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())


def test_bad_arguments(trained, converted):
    with pytest.raises(ValueError, match="model has no quantization"):
        qatx.verify(Residual(), converted, torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="data is empty"):
        qatx.verify(trained, converted, [])
    with pytest.raises(TypeError, match=r"a batch must be a tensor.*got dict"):
        qatx.verify(trained, converted, [{}])
