import pytest
import qatx
import torch
from qatx import QConfig, QuantSpec
from qatx.nn import Linear
from torch import nn


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axis", [0, None])
def test_multiplies_with_its_quantized_weight(bias, axis):
    linear = nn.Linear(6, 4, bias=bias)
    qconfig = QConfig(weight=QuantSpec(bits=3, axis=axis))
    module = Linear.from_float(linear, qconfig=qconfig, relu=True, quantize_output=False)
    x = torch.randn(2, 5, 6)
    qatx.calibrate(module, x)
    weight = linear.weight.detach().double()
    scale = (weight.abs().amax() if axis is None else weight.abs().amax(1, keepdim=True)) / 3
    expected = x.double() @ ((weight / scale).round() * scale).T
    if bias:
        expected += linear.bias.detach().double()
    torch.testing.assert_close(module(x).double(), expected.relu(), rtol=1e-5, atol=1e-5)
    assert (module(x) - linear(x).relu()).abs().max() > 1e-3


def test_from_float_copies():
    linear = nn.Linear(6, 4, bias=False).eval()
    module = Linear.from_float(linear)
    assert torch.equal(module.weight, linear.weight)
    assert module.weight.data_ptr() != linear.weight.data_ptr()
    assert module.bias is None
    assert not module.training
    assert module.output_fake_quantize is not None


def test_bad_input():
    with pytest.raises(ValueError, match=r"Linear: the weight must be float32, got torch\.float64"):
        Linear.from_float(nn.Linear(6, 4).double())
    with pytest.raises(ValueError, match="relu must be"):
        Linear(6, 4, relu="tanh")
