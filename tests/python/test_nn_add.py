import qatx
import torch
from qatx.nn import Add


def test_adds_then_relu_then_quantization():
    module = Add(relu=True)
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    qatx.calibrate(module, [(a, b)], forward=lambda model, batch: model(*batch))
    y = module(a, b)
    expected = (a + b).relu()
    scale = expected.max() / 255
    assert (y - expected).abs().max() <= scale * 0.51
    torch.testing.assert_close(y / scale, (y / scale).round(), rtol=0, atol=1e-4)


def test_the_output_may_stay_float():
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(Add(relu="relu6", quantize_output=False)(a, b), (a + b).clamp(0, 6))
    assert torch.equal(Add(quantize_output=False)(a, b), a + b)
    assert "relu='relu6'" in repr(Add(relu="relu6"))
