"""What `qatx.convert` refuses before any conversion."""

import copy

import pytest
import qatx
import torch
from models import Residual
from torch import nn

X = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def model() -> nn.Module:
    model = qatx.prepare(Residual())
    qatx.calibrate(model, torch.rand(2, 3, 8, 8))
    return model


def test_not_calibrated():
    with pytest.raises(ValueError, match=r"not calibrated.*Without a scale: .*fc\.weight_fake"):
        qatx.convert(qatx.prepare(Residual()), X)


def test_partly_calibrated(model):
    model.conv1.output_fake_quantize.reset_parameters()
    with pytest.raises(ValueError, match=r"Without a scale: conv1\.output_fake_quantize$"):
        qatx.convert(model, X)


def test_not_prepared():
    with pytest.raises(ValueError, match=r"no quantization; call qatx\.prepare first"):
        qatx.convert(Residual(), X)


def test_not_a_module():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got str"):
        qatx.convert("model.pt", X)


def test_inputs_of_another_form(model):
    with pytest.raises(TypeError, match="must be a tensor or a tuple of tensors, got list"):
        qatx.convert(model, [X])
    with pytest.raises(TypeError, match=r"example_inputs\[1\] must be a tensor, got int"):
        qatx.convert(model, (X, 1))


def test_inputs_that_do_not_fit(model):
    with pytest.raises(RuntimeError, match="Residual cannot be traced with the example") as error:
        qatx.convert(model, torch.zeros(1, 5, 8, 8))
    assert "channels" in str(error.value.__cause__)


def test_a_model_that_cannot_be_traced():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = qatx.nn.Linear(3, 2)

        def forward(self, x):
            return str(self.fc(x))

    model = Text()
    qatx.calibrate(model, torch.rand(2, 3))
    with pytest.raises(RuntimeError, match="Text cannot be traced"):
        qatx.convert(model, torch.rand(2, 3))


def test_the_model_stays_as_it_was(model):
    model.train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError):
        qatx.convert(model, torch.zeros(1, 5, 8, 8))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
