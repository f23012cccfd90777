import copy

import pytest
import qatx
import torch
import torch.nn.functional as F
from models import randomize_batch_norm
from qatx import QConfig, QuantSpec
from qatx.nn import Conv2d, ConvBn2d
from torch import nn

SHAPES = [
    {"kernel_size": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": (3, 1), "padding": (1, 0), "groups": 2},
    {"kernel_size": 3, "padding": "same", "groups": 4},
]
FOUR_BITS = QConfig(weight=QuantSpec(bits=4, axis=0))


def float_conv_bn(*, bias: bool = False, affine: bool = True, **shape) -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(4, 8, **{"kernel_size": 3, **shape}, bias=bias),
        nn.BatchNorm2d(8, affine=affine, momentum=0.3),
    )
    return randomize_batch_norm(model)


def conv_bn(model: nn.Sequential, *, quantize_output: bool = False, **options) -> ConvBn2d:
    """The calibrated twin of a float model."""
    options = {"qconfig": FOUR_BITS, **options}
    module = ConvBn2d.from_float(*model, quantize_output=quantize_output, **options)
    qatx.calibrate(module, torch.randn(4, 4, 7, 7))
    return module


def factor_of(bn: nn.BatchNorm2d) -> torch.Tensor:
    gamma = torch.ones(8) if bn.weight is None else bn.weight.detach()
    return gamma.double() / (bn.running_var.double() + bn.eps).sqrt()


def weight_of(module: ConvBn2d) -> torch.Tensor:
    """The quantized weight in float64, checked against the folded weight that it stands for."""
    folded = module.weight.detach().double() * factor_of(module.bn)[:, None, None, None]
    scale = module.weight_fake_quantize.scale.detach().double()[:, None, None, None]
    codes = module.weight_fake_quantize(folded.float()).detach().double() / scale
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-5)
    assert (codes - folded / scale).abs().max() <= 0.5 + 1e-5
    assert codes.abs().amax((1, 2, 3)).round().tolist() == [7] * 8
    return codes.round() * scale


def convolve(module: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.conv2d(
        x.double(), weight, None, module.stride, module.padding, module.dilation, module.groups
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_conv_multiplies_with_its_quantized_weight(shape, bias):
    conv = nn.Conv2d(4, 8, **shape, bias=bias)
    module = Conv2d.from_float(conv, qconfig=FOUR_BITS, quantize_output=False)
    qatx.calibrate(module, torch.randn(2, 4, 7, 7))
    x = torch.randn(2, 4, 7, 7)
    scale = conv.weight.double().abs().amax((1, 2, 3), keepdim=True) / 7
    weight = (conv.weight.double() / scale).round() * scale
    expected = convolve(conv, x, weight)
    if bias:
        expected += conv.bias.double()[:, None, None]
    torch.testing.assert_close(module(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert (module(x) - conv(x)).abs().max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_evaluation_is_one_convolution_with_the_folded_weight(shape, bias, affine):
    model = float_conv_bn(**shape, bias=bias, affine=affine).eval()
    module = conv_bn(model).eval()
    x = torch.randn(3, 4, 7, 7)
    shift = -model[1].running_mean.double()
    if bias:
        shift += model[0].bias.double()
    folded_bias = shift * factor_of(model[1])
    if affine:
        folded_bias += model[1].bias.double()
    expected = convolve(module, x, weight_of(module)) + folded_bias[:, None, None]
    torch.testing.assert_close(module(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_without_quantization_it_is_the_float_model(bias, affine):
    model = float_conv_bn(bias=bias, affine=affine).eval()
    module = ConvBn2d.from_float(*model, quantize_output=False)
    module.weight_fake_quantize.begin_calibration()
    x = torch.randn(3, 4, 7, 7)
    for mode in (False, True):
        model.train(mode)
        module.train(mode)
        torch.testing.assert_close(module(x), model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.bn.running_mean, model[1].running_mean)
    torch.testing.assert_close(module.bn.running_var, model[1].running_var)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_training_normalizes_with_the_statistics_of_the_batch(bias, affine):
    model = float_conv_bn(bias=bias, affine=affine)
    module = conv_bn(model).train()
    x = torch.randn(5, 4, 7, 7)
    y = convolve(module, x, weight_of(module)) / factor_of(module.bn)[:, None, None]
    if bias:
        y += model[0].bias.double()[:, None, None]
    bn = copy.deepcopy(model[1]).double().train()
    expected = bn(y)
    torch.testing.assert_close(module(x).double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        module.bn.running_mean.double(), bn.running_mean, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(module.bn.running_var.double(), bn.running_var, rtol=1e-4, atol=1e-5)


def gradients(module: nn.Module, x: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
    conv, bn = (module, module.bn) if isinstance(module, ConvBn2d) else module
    module.zero_grad()
    (module(x) * target).sum().backward()
    return [p.grad.flatten() for p in (conv.weight, bn.weight, bn.bias)]


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_are_those_of_the_float_model_up_to_rounding(frozen):
    model = float_conv_bn()
    module = conv_bn(model, qconfig=QConfig()).train()
    module.batch_norm_frozen = frozen
    model.train(not frozen)
    x, target = torch.randn(5, 4, 7, 7), torch.randn(5, 8, 5, 5)
    for actual, expected in zip(
        gradients(module, x, target), gradients(model, x, target), strict=True
    ):
        assert F.cosine_similarity(actual, expected, dim=0) > 0.999
        torch.testing.assert_close(actual.norm(), expected.norm(), rtol=0.02, atol=0)


def test_frozen_batch_normalization_is_evaluation_that_trains():
    module = conv_bn(float_conv_bn())
    x = torch.randn(5, 4, 7, 7)
    expected = module.eval()(x)
    statistics = copy.deepcopy(dict(module.bn.named_buffers()))
    module.train().batch_norm_frozen = True
    assert torch.equal(module(x), expected)
    torch.testing.assert_close(dict(module.bn.named_buffers()), statistics, rtol=0, atol=0)
    module(x).square().sum().backward()
    for parameter in (module.weight, module.bn.weight, module.weight_fake_quantize.scale):
        assert parameter.grad.abs().max() > 0


def test_a_gamma_of_zero_gives_beta():
    model = float_conv_bn()
    with torch.no_grad():
        model[1].weight[3] = 0
    module = conv_bn(model).train()
    y = module(torch.randn(5, 4, 7, 7))
    torch.testing.assert_close(y[:, 3], model[1].bias[3].expand(5, 5, 5))
    y.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("relu", "function"), [(False, lambda y: y), (True, F.relu), ("relu6", F.relu6)]
)
def test_relu_comes_before_the_quantization_of_the_output(relu, function):
    conv = nn.Conv2d(4, 8, 3)
    nn.init.normal_(conv.weight, 0, 1)
    x = torch.randn(2, 4, 7, 7)
    raw = Conv2d.from_float(conv, quantize_output=False)
    module = Conv2d.from_float(conv, relu=relu)
    for each in (raw, module):
        qatx.calibrate(each, x)
    y = function(raw(x))
    assert y.max() <= 6 or relu != "relu6"
    assert torch.equal(module(x), module.output_fake_quantize(y))
    assert (module(x) - y).abs().max() > 0


@pytest.mark.parametrize("kind", [Conv2d, ConvBn2d])
def test_from_float_copies(kind):
    model = float_conv_bn(bias=True).eval()
    model[0].bias.requires_grad_(False)
    state = torch.get_rng_state()
    source = model if kind is ConvBn2d else model[:1]
    module = kind.from_float(*source)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(module.weight, model[0].weight)
    assert not module.training
    assert [p.requires_grad for p in (module.weight, module.bias)] == [True, False]
    shared = {p.data_ptr() for p in model.parameters()} & {
        p.data_ptr() for p in module.parameters()
    }
    assert not shared
    assert (module.stride, module.padding) == (model[0].stride, model[0].padding)
    if kind is ConvBn2d:
        assert module.bn.momentum == 0.3
        assert torch.equal(module.bn.running_var, model[1].running_var)


def test_constructors_take_what_torchs_take():
    module = Conv2d(4, 8, 3, 2, 1, 1, 2, False, relu=True, quantize_output=False)
    assert (module.stride, module.groups, module.bias) == ((2, 2), 2, None)
    assert module.output_fake_quantize is None
    assert module.weight_fake_quantize.scale.shape == (8,)
    module = ConvBn2d(4, 8, 3, bias=True, eps=1e-3, momentum=None, affine=False)
    assert (module.bn.eps, module.bn.momentum, module.bn.affine) == (1e-3, None, False)
    assert module.bias is not None
    qatx.calibrate(module, torch.randn(2, 4, 5, 5))
    assert module(torch.randn(2, 4, 5, 5)).shape == (2, 8, 3, 3)


def test_whether_batch_normalization_is_frozen_is_carried_over():
    source = conv_bn(float_conv_bn())
    source.batch_norm_frozen = True
    target = ConvBn2d(4, 8, 3, quantize_output=False)
    target.load_state_dict(source.state_dict())
    assert target.batch_norm_frozen
    assert copy.deepcopy(source).batch_norm_frozen
    assert "batch_norm_frozen=True" in repr(target)


def test_bad_input():
    conv = nn.Conv2d(4, 8, 3)
    with pytest.raises(ValueError, match="relu must be False, True or \"relu6\", got 'gelu'"):
        Conv2d(4, 8, 3, relu="gelu")
    with pytest.raises(ValueError, match="padding_mode must be \"zeros\", got 'reflect'"):
        Conv2d.from_float(nn.Conv2d(4, 8, 3, padding_mode="reflect"))
    with pytest.raises(ValueError, match=r"weight must be float32, got torch\.float16"):
        Conv2d.from_float(conv.half())
    with pytest.raises(ValueError, match="the 8 channels of the convolution, got 4"):
        ConvBn2d.from_float(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="bn must have running statistics"):
        ConvBn2d.from_float(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, track_running_stats=False))
