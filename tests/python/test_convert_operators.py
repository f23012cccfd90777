"""Every operator that runs in integers, in networks of its own: equal to the contract."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import contract
import pytest
import qatx
import torch
from models import learn_statistics, quantized_values
from torch import Tensor, nn
from torch.nn import functional as F

SIGNED = qatx.QConfig(
    weight=qatx.QuantSpec(bits=4, signed=True, symmetric=True, axis=0),
    activation=qatx.QuantSpec(bits=8, signed=True, symmetric=False),
)
QCONFIGS = {"W8A8": qatx.QConfig(), "W4A8, signed": SIGNED}


class Between(nn.Module):
    """An operator between two convolutions: what it reads and what it gives are quantized."""

    def __init__(self, function, channels: int = 8, **modules: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(channels, 4, 1)
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(
            self.function(SimpleNamespace(model=self, input=x, x=self.first(x), y=self.second(x)))
        )


def convert_exactly(
    model: nn.Module, *inputs: Tensor, qconfig=None, examples=None, batches: bool = True
):
    """Prepares and converts, and compares with the contract: batches, and one by one."""
    prepared = qatx.prepare(learn_statistics(model, *inputs).eval(), qconfig)
    qatx.calibrate(prepared, [inputs], forward=lambda m, batch: m(*batch))
    converted, report = qatx.convert(prepared, examples or tuple(x[:1] for x in inputs))
    expected = contract.evaluate(prepared, *inputs)
    outputs = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        outputs[threads] = converted(*inputs)
    assert torch.equal(outputs[1], expected)
    assert torch.equal(outputs[2], expected)
    if not batches:
        return converted, report
    singles = [converted(*(x[n : n + 1] for x in inputs)) for n in range(len(inputs[0]))]
    assert torch.equal(torch.cat(singles), expected)
    return converted, report


def check_all_integer(model: nn.Module, *inputs: Tensor, qconfig=None):
    converted, report = convert_exactly(model, *inputs, qconfig=qconfig)
    floats = [(row.kind, row.reason) for row in report.rows if not row.integer]
    assert not floats
    assert str(converted.graph).count("qatx::run_program") == 1
    return converted, report


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


UNARY = {
    "sigmoid": lambda s: torch.sigmoid(s.x),
    "sigmoid_": lambda s: s.x.sigmoid_(),
    "hardsigmoid": lambda s: F.hardsigmoid(s.x),
    "tanh": lambda s: s.x.tanh(),
    "hardswish": lambda s: F.hardswish(s.x),
    "silu": lambda s: F.silu(s.x, inplace=True),
    "gelu": lambda s: F.gelu(s.x),
    "gelu tanh": lambda s: F.gelu(s.x, approximate="tanh"),
    "elu": lambda s: F.elu(s.x, 0.7),
    "selu": lambda s: F.selu(s.x),
    "celu": lambda s: F.celu(s.x, 1.3),
    "leaky_relu": lambda s: F.leaky_relu(s.x, 0.1),
    "mish": lambda s: F.mish(s.x),
    "softplus": lambda s: F.softplus(s.x),
    "softshrink": lambda s: F.softshrink(s.x, 0.2),
    "logsigmoid": lambda s: F.logsigmoid(s.x),
    "hardtanh": lambda s: F.hardtanh(s.x, -0.4, 0.6),
    "clamp": lambda s: s.x.clamp(min=-0.3),
    "clamp behind a table": lambda s: torch.tanh(s.x).clamp(-0.3, 0.3),
    "relu of a value that others use": lambda s: F.relu(s.x) * s.x,
    "exp": lambda s: torch.exp(s.x),
    "sqrt": lambda s: torch.sqrt(torch.relu(s.x)),
    "sqrt of negative numbers": lambda s: torch.sqrt(s.x + 1),
    "abs": lambda s: abs(s.x),
    "neg": lambda s: -s.x,
    "square": lambda s: torch.square(s.x),
    "pow": lambda s: s.x**3,
    "reciprocal": lambda s: 1 / (s.x + 100),
    "plus and times": lambda s: (s.x + 3) * 0.5,
    "minus and by": lambda s: (2 - s.x) / 3,
    "hardswish by hand": lambda s: s.x * F.relu6(s.x + 3) / 6,
    "a table of a table of a table": lambda s: torch.exp(torch.sin(s.x) * 2),
    "a table that two read": lambda s: (lambda z: z * torch.sigmoid(z))(torch.tanh(s.x)),
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_value(name: str):
    x = torch.randn(3, 3, 9, 7)
    if name == "sqrt of negative numbers":
        # NaN becomes 0 where it is quantized, and stays NaN in training.
        x = x / 4
    check_all_integer(Between(UNARY[name]), x, qconfig=SIGNED if len(name) % 2 else None)


MODULES = [
    *(nn.Sigmoid(), nn.Hardsigmoid(), nn.Tanh(), nn.Hardswish(), nn.Hardswish(inplace=True)),
    *(nn.SiLU(), nn.GELU(), nn.ELU(), nn.SELU(), nn.CELU(), nn.LeakyReLU(0.2), nn.Mish()),
    *(nn.Softplus(), nn.Hardtanh(), nn.PReLU(), nn.Softshrink(), nn.Threshold(0.1, 0.2)),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_modules_that_are_functions_of_one_value(module: nn.Module):
    model = Between(lambda s: s.model.activation(s.x), activation=module)
    _, report = check_all_integer(model, torch.randn(2, 3, 5, 5))
    assert report.integer_share_of_macs == 1.0


def prelu_by_channel(channels: int) -> nn.PReLU:
    prelu = nn.PReLU(channels)
    nn.init.uniform_(prelu.weight, -0.5, 1.5)
    return prelu


def random_parameter(*sizes: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(*sizes) * 2 - 0.5)


BY_CHANNEL = {
    "prelu": lambda s: s.model.prelu(s.x),
    "batch norm": lambda s: s.model.bn(s.x * s.y),
    "batch norm and relu": lambda s: F.relu(s.model.bn(F.max_pool2d(s.x, 2))),
    "batch norm of a sum": lambda s: s.model.bn(s.x + s.y),
    "batch norm of a function": lambda s: s.model.bn(torch.tanh(s.x)),
    "layer scale": lambda s: s.x * s.model.scale + s.y,
    "layer scale from the left": lambda s: s.model.vector.view(1, -1, 1, 1) * s.x,
    "layer scale of a function": lambda s: torch.sigmoid(s.x) * s.model.scale * 2,
    "mean and deviation": lambda s: (s.x - s.model.scale) / (s.model.scale + 3),
    "bias": lambda s: torch.relu(s.x + s.model.scale),
    "along the width": lambda s: s.x * s.model.columns,
    "of rows": lambda s: (
        (s.x.flatten(2).transpose(1, 2) * s.model.vector).transpose(1, 2).unflatten(2, (5, 6))
    ),
}


@pytest.mark.parametrize("name", BY_CHANNEL)
def test_functions_that_differ_between_channels(name: str):
    torch.manual_seed(len(name))
    model = Between(BY_CHANNEL[name], prelu=prelu_by_channel(8), bn=nn.BatchNorm2d(8))
    nn.init.normal_(model.bn.weight)
    nn.init.normal_(model.bn.bias)
    model.scale, model.vector = random_parameter(8, 1, 1), random_parameter(8)
    model.columns = random_parameter(6)
    check_all_integer(model, torch.randn(2, 3, 5, 6), qconfig=SIGNED if len(name) % 2 else None)


@pytest.mark.parametrize("sizes", [(6,), (6, 5), (6, 2, 3, 2)], ids=str)
def test_functions_that_differ_between_channels_of_any_tensor(sizes: tuple[int, ...]):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prelu = prelu_by_channel(6)
            self.bn = [nn.BatchNorm1d(6), nn.BatchNorm1d(6), None, nn.BatchNorm3d(6)][
                len(sizes) - 1
            ]
            self.last = nn.Linear(sizes[-1], 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.bn(self.prelu(x)))

    torch.manual_seed(0)
    check_all_integer(Net(), torch.randn(3, *sizes))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_batch_normalization_by_the_batch_stays_float():
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    model = Between(lambda s: s.model.bn(s.x * s.y), bn=norm)
    _, report = convert_exactly(model, torch.randn(2, 3, 5, 5), batches=False)
    reasons = {row.kind: row.reason for row in report.rows if not row.integer}
    assert reasons["aten::batch_norm"] == "normalizes with the statistics of its input"


def test_a_constant_that_differs_along_two_dimensions_stays_float():
    model = Between(lambda s: s.x * s.model.map)
    model.map = random_parameter(8, 1, 6)
    _, report = convert_exactly(model, torch.randn(2, 3, 5, 6))
    assert {row.kind for row in report.rows if not row.integer} == {"aten::mul"}


def test_a_function_at_the_end_of_a_model_stays_float_and_precise():
    prepared = qatx.prepare(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid()))
    assert quantized_values(prepared) == {"input_fake_quantize"}


def test_a_function_of_codes_may_be_an_output():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = qatx.nn.Conv2d(3, 4, 1)
            self.input = qatx.nn.FakeQuantize(qatx.QConfig().activation, role="activation")

        def forward(self, x):
            return torch.sigmoid(self.conv(self.input(x)))

    x = torch.randn(2, 3, 5, 5)
    model = Net()
    qatx.calibrate(model, x)
    converted, report = qatx.convert(model, x)
    assert all(row.integer for row in report.rows)
    assert torch.equal(converted(x), contract.evaluate(model, x))


PRODUCTS = {
    "*": lambda s: s.x * s.y,
    "torch.mul": lambda s: torch.mul(s.x, s.y),
    "mul_": lambda s: s.x.mul_(s.y),
    "with itself": lambda s: s.x * s.x,
    "by channel": lambda s: s.x * s.y.mean((2, 3), keepdim=True),
    "by pixel": lambda s: s.model.gate(s.y) * s.x,
    "relu behind it": lambda s: F.relu(s.x * s.y),
    "quotient": lambda s: s.x / (s.y.abs() + 1),
    "quotient by channel": lambda s: torch.div(s.x, (s.y + 9).mean((2, 3), keepdim=True)),
    "sum by channel": lambda s: torch.tanh(s.x) + s.y.mean((2, 3), keepdim=True),
    "sum by pixel": lambda s: torch.relu(s.model.relu(s.model.gate(s.y)) + torch.tanh(s.x)),
    "sum of products": lambda s: s.x * s.y + torch.sigmoid(s.x) * s.y,
    "squeeze and excitation": lambda s: (
        s.x * F.hardsigmoid(s.model.fc(F.relu(s.model.reduce(F.adaptive_avg_pool2d(s.x, 1)))))
    ),
}


@pytest.mark.parametrize("qconfig", QCONFIGS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_and_sums_of_two_values(name: str, qconfig: str):
    modules = {"gate": nn.Conv2d(8, 1, 1), "reduce": nn.Conv2d(8, 3, 1), "fc": nn.Conv2d(3, 8, 1)}
    model = Between(PRODUCTS[name], relu=nn.ReLU(), **modules)
    check_all_integer(model, torch.randn(3, 3, 9, 7), qconfig=QCONFIGS[qconfig])


def test_products_at_the_end_of_a_model_stay_float():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Square())
    assert quantized_values(qatx.prepare(model)) == {"input_fake_quantize"}


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class InvertedResidual(nn.Module):
    """MobileNetV3's block: depthwise convolution, squeeze and excitation, hardswish, residual."""

    def __init__(self, channels: int, expanded: int, activation, gate) -> None:
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(channels, expanded, 1, bias=False), nn.BatchNorm2d(expanded), activation()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(expanded, expanded, 3, padding=1, groups=expanded, bias=False),
            nn.BatchNorm2d(expanded),
            activation(),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(expanded, 4, 1)
        self.excite = nn.Conv2d(4, expanded, 1)
        self.inner = nn.ReLU() if gate is nn.Hardsigmoid else activation()
        self.gate = gate()
        self.project = nn.Sequential(
            nn.Conv2d(expanded, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = y * self.gate(self.excite(self.inner(self.squeeze(self.pool(y)))))
        return self.project(y) + x


@pytest.mark.parametrize("qconfig", QCONFIGS)
@pytest.mark.parametrize(
    ("activation", "gate"), [(nn.Hardswish, nn.Hardsigmoid), (nn.SiLU, nn.Sigmoid)]
)
def test_mobile_networks_convert_entirely(activation, gate, qconfig: str):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        activation(),
        InvertedResidual(8, 24, activation, gate),
        InvertedResidual(8, 16, activation, gate),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        nn.Linear(8, 16),
        activation(),
        nn.Linear(16, 5),
    )
    x = torch.randn(4, 3, 16, 16)
    _, report = check_all_integer(model, x, qconfig=QCONFIGS[qconfig])
    assert report.integer_share_of_macs == 1.0


def gated(s):
    a, b = s.x.chunk(2, 1)
    return a * torch.sigmoid(b)


def uneven_chunks(s):
    a, b, c = s.x.chunk(3, 1)
    return torch.cat([c, a, b], 1)


def shuffle_channels(s):
    n, c, h, w = s.x.shape
    y = s.x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous()
    return y.view(n, c, h, w)


# What moves codes: every model must become one program.
MOVES = {
    "cat": (lambda s: torch.cat([s.x, s.y], 1), 16),
    "cat of one with itself": (lambda s: torch.cat((s.x, s.x, s.y), dim=1), 24),
    "cat of heights": (lambda s: torch.cat([s.x, s.y, s.x], 2), 8),
    "cat of widths": (lambda s: torch.cat([s.x, s.y], -1), 8),
    "cat of cats": (lambda s: torch.cat([torch.cat([s.x, s.y], 1), s.y], 1), 24),
    "cat with the model's input": (lambda s: torch.cat([s.x, s.input], 1), 11),
    "cat behind activations": (lambda s: torch.cat([F.silu(s.x), torch.tanh(s.y)], 1), 16),
    "cat of pooled values": (lambda s: torch.cat([F.max_pool2d(s.x, 3, 1, 1), s.y], 1), 16),
    "stack": (lambda s: torch.cat([s.x[:, None], s.y[:, None]], 1).flatten(1, 2), 16),
    "chunk": (gated, 4),
    "uneven chunks": (uneven_chunks, 8),
    "split": (lambda s: torch.cat([torch.split(s.x, 3, 1)[2], s.y], 1), 10),
    "split by sizes": (lambda s: (lambda p: p[0] * p[1])(s.x.split([4, 4], 1)), 4),
    "narrow": (lambda s: s.x.narrow(1, 2, 5), 5),
    "slices": (lambda s: s.x[:, 1:6:2, 2:, -4:], 3),
    "a slice of half of the channels": (lambda s: s.x[:, : s.x.size(1) // 2], 4),
    "one channel": (lambda s: s.x[:, -1].unsqueeze(1) * s.y[:, 3, None], 1),
    "zeros around": (lambda s: F.pad(s.x, (1, 2, 3, 0)), 8),
    "cut off": (lambda s: F.pad(s.x, (-1, 2, 0, -2)), 8),
    "zero channels": (lambda s: F.pad(s.x, (0, 0, 0, 0, 1, 2)), 11),
    "reflection": (lambda s: F.pad(s.x, (1, 2, 3, 0), "reflect"), 8),
    "replication": (lambda s: F.pad(s.x, (1, 2, 3, 0), mode="replicate"), 8),
    "padding modules": (lambda s: s.model.reflect(s.model.zeros(s.model.replicate(s.x))), 8),
    "permute": (lambda s: s.x.permute(0, 1, 3, 2), 8),
    "transpose": (lambda s: s.x.transpose(1, 3).transpose(1, 2).transpose(1, 3), 8),
    "permute and relu": (lambda s: F.relu(s.x.permute(0, 1, 3, 2)), 8),
    "flatten and view": (lambda s: s.x.flatten(2).unsqueeze(2), 8),
    "squeeze": (lambda s: s.x[:, :, 2:3].squeeze(2).unsqueeze(-1), 8),
    "view of channels": (lambda s: s.x.view(-1, 2, 4, 9, 7)[:, 0], 4),
    "reshape that cuts dimensions": (lambda s: s.x.reshape(-1, 9, 8, 7).reshape(-1, 7, 8, 9), 7),
    "channel shuffle": (lambda s: F.channel_shuffle(s.x, 2), 8),
    "channel shuffle by hand": (shuffle_channels, 8),
    "pixel shuffle": (lambda s: F.pixel_shuffle(s.x, 2), 2),
    "pixel shuffle and back": (lambda s: F.pixel_unshuffle(F.pixel_shuffle(s.x, 2), 2), 8),
    "pixel unshuffle": (lambda s: F.pixel_unshuffle(s.x[:, :, 1:, 1:], 2), 32),
    "nearest": (lambda s: F.interpolate(s.x, scale_factor=2), 8),
    "nearest by a fraction": (lambda s: F.interpolate(s.x, scale_factor=(1.7, 0.6)), 8),
    "nearest to a size": (lambda s: F.interpolate(s.x, size=(20, 5), mode="nearest"), 8),
    "nearest-exact": (lambda s: F.interpolate(s.x, size=(20, 5), mode="nearest-exact"), 8),
    "Upsample": (lambda s: torch.cat([s.model.up(s.x), s.model.up(s.y)], 1), 16),
    "bilinear": (lambda s: F.interpolate(s.x, scale_factor=2, mode="bilinear"), 8),
    "bilinear by a fraction": (
        lambda s: F.interpolate(s.x, scale_factor=(1.7, 0.6), mode="bilinear"),
        8,
    ),
    "bilinear with aligned corners": (
        lambda s: F.interpolate(s.x, size=(20, 5), mode="bilinear", align_corners=True),
        8,
    ),
    "bilinear to one pixel": (
        lambda s: F.interpolate(s.x, size=(1, 1), mode="bilinear", align_corners=True) * s.y,
        8,
    ),
    "UpsamplingBilinear2d": (lambda s: F.relu(s.model.bilinear(s.x)), 8),
}


@pytest.mark.parametrize("name", MOVES)
def test_operators_that_move_codes(name: str):
    function, channels = MOVES[name]
    modules = {
        "zeros": nn.ZeroPad2d((1, 0, 2, 1)),
        "reflect": nn.ReflectionPad2d(2),
        "replicate": nn.ReplicationPad2d((0, 1, 2, 3)),
        "up": nn.Upsample(scale_factor=3),
        "bilinear": nn.UpsamplingBilinear2d(scale_factor=2),
    }
    model = Between(function, channels, **modules)
    x = torch.randn(3, 3, 9, 7)
    check_all_integer(model, x, qconfig=SIGNED if len(name) % 2 else None)


TRANSPOSED = {
    "2 by 2": {"kernel_size": 2, "stride": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "wide": {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False},
    "stride 1": {"kernel_size": 3, "padding": 1},
    "gaps": {"kernel_size": 1, "stride": 2},
    "groups": {"kernel_size": 3, "stride": 2, "groups": 4, "out": 12},
    "depthwise": {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 8, "out": 8},
    "everything": {"kernel_size": (3, 2), "stride": (3, 2), "dilation": (2, 3), "padding": (1, 2)},
}


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name: str, relu: bool):
    options = dict(TRANSPOSED[name])
    out = options.pop("out", 13)
    up = nn.ConvTranspose2d(8, out, **options)
    model = Between(lambda s: F.relu(s.model.up(s.x)) if relu else s.model.up(s.x), out, up=up)
    _, report = check_all_integer(model, torch.randn(3, 3, 9, 7), qconfig=SIGNED if relu else None)
    assert report.integer_share_of_macs == 1.0


class Line(nn.Module):
    """Operators on [N, C, L] and [N, L, C]."""

    def __init__(self, function, features: int = 12, **modules: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv1d(5, 12, 3, padding=1)
        self.last = nn.Linear(features, 3)
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(SimpleNamespace(model=self, x=self.first(x))))


LINES = {
    "linear behind a convolution": lambda s: s.x.transpose(1, 2),
    "relu": lambda s: F.relu(s.x).transpose(1, 2),
    "activation": lambda s: F.gelu(s.x).transpose(1, 2),
    "stride and dilation": lambda s: s.model.wide(s.x).transpose(1, 2),
    "same": lambda s: s.model.same(s.x).transpose(1, 2),
    "residual": lambda s: F.relu(s.model.same(F.relu(s.x)) + s.x).mean(2),
    "residual of linear layers": lambda s: (lambda y: y + s.model.fc(y))(s.x.transpose(1, 2)),
    "groups": lambda s: s.model.grouped(s.x).permute(0, 2, 1),
    "depthwise": lambda s: s.model.depthwise(s.x).permute(0, 2, 1),
    "max pooling": lambda s: F.max_pool1d(s.x, 3, 2, 1).transpose(1, 2),
    "max over time": lambda s: F.max_pool1d(s.x, s.x.size(2)).squeeze(2),
    "amax": lambda s: torch.amax(s.x, 2),
    "amax of channels": lambda s: (s.x * s.x.amax(1, keepdim=True)).transpose(1, 2),
    "max": lambda s: s.x.max(dim=2).values,
    "max of channels": lambda s: (s.x - torch.max(s.x, 1, keepdim=True)[0]).transpose(1, 2),
    "amax that keeps the dimension": lambda s: s.x.amax(-1, keepdim=True).transpose(1, 2),
    "average pooling": lambda s: F.avg_pool1d(s.x, 2).transpose(1, 2),
    "adaptive pooling": lambda s: F.adaptive_avg_pool1d(s.x, 4).transpose(1, 2),
    "mean over time": lambda s: s.x.mean(2),
    "mean over channels": lambda s: (s.x * s.x.mean(1, keepdim=True)).mean(-1),
    "mean over the middle": lambda s: s.x.transpose(1, 2).mean(1),
    "padding": lambda s: F.pad(s.x, (2, 1)).transpose(1, 2),
    "nearest": lambda s: F.interpolate(s.x, scale_factor=2).transpose(1, 2),
    "four dimensions": lambda s: s.model.four(s.x.view(-1, 3, 4, 10).permute(0, 1, 3, 2)),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_and_rows(name: str):
    modules = {
        "wide": nn.Conv1d(12, 12, 3, 2, 2, 2),
        "same": nn.Conv1d(12, 12, 3, padding="same"),
        "grouped": nn.Conv1d(12, 12, 3, groups=3),
        "depthwise": nn.Conv1d(12, 12, 5, padding=2, groups=12, bias=False),
        "fc": nn.Linear(12, 12),
        "four": nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 12)),
    }
    model = Line(LINES[name], **modules)
    _, report = check_all_integer(model, torch.randn(3, 5, 10), qconfig=SIGNED)
    assert report.integer_share_of_macs == 1.0


MEANS = {
    "height": lambda s: s.x * s.x.mean(2, keepdim=True),
    "width, without it": lambda s: s.x + s.x.mean(3).unsqueeze(3) * s.y,
    "height, without it": lambda s: s.x * s.x.mean(2).unsqueeze(2),
    "channels": lambda s: s.x * s.x.mean((1,), keepdim=True),
    "channels and width": lambda s: s.x * s.x.mean((1, 3), keepdim=True),
    "to other sizes": lambda s: F.adaptive_avg_pool2d(s.x, (3, 5)),
}


@pytest.mark.parametrize("name", MEANS)
def test_means_over_any_dimensions(name: str):
    check_all_integer(Between(MEANS[name]), torch.randn(3, 3, 9, 7))


class UNet(nn.Module):
    """Down and up again, with skip connections that are concatenated."""

    def __init__(self, up: str) -> None:
        super().__init__()

        def block(cin: int, cout: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU()
            )

        self.down1, self.down2, self.bottom = block(3, 8), block(8, 12), block(12, 16)
        self.pool = nn.MaxPool2d(2)
        if up == "transposed":
            self.up2, self.up1 = nn.ConvTranspose2d(16, 12, 2, 2), nn.ConvTranspose2d(12, 8, 2, 2)
        else:
            self.up2 = nn.Sequential(nn.Upsample(scale_factor=2, mode=up), nn.Conv2d(16, 12, 1))
            self.up1 = nn.Sequential(nn.Upsample(scale_factor=2, mode=up), nn.Conv2d(12, 8, 1))
        self.join2, self.join1 = block(24, 12), block(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(self.pool(a))
        c = self.bottom(self.pool(b))
        b = self.join2(torch.cat([self.up2(c), b], 1))
        return self.head(self.join1(torch.cat([self.up1(b), a], 1)))


class ShuffleBlock(nn.Module):
    """ShuffleNet V2's block: half of the channels pass by, then all are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            *(nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU()),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            *(nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        y = torch.cat((a, self.branch(b)), dim=1)
        n, channels, h, w = y.size()
        y = y.view(n, 2, channels // 2, h, w).transpose(1, 2).contiguous()
        return y.view(n, channels, h, w)


class TextCNN(nn.Module):
    """Convolutions of several widths over embedded words, and the greatest value over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 12)
        self.convs = nn.ModuleList(nn.Conv1d(12, 10, width) for width in (2, 3, 4))
        self.head = nn.Linear(30, 4)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words).transpose(1, 2)
        found = [F.relu(conv(x)) for conv in self.convs]
        return self.head(torch.cat([F.max_pool1d(y, y.size(2)).squeeze(2) for y in found], 1))


class ResNeXtBlock(nn.Module):
    """A bottleneck with a grouped convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False),
            *(nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, channels, 1, bias=False), nn.BatchNorm2d(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + x)


def stem(*blocks: nn.Module) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), *blocks),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)),
    )


NETWORKS = {
    "U-Net": lambda: UNet("transposed"),
    "U-Net, nearest": lambda: UNet("nearest"),
    "U-Net, bilinear": lambda: UNet("bilinear"),
    "ShuffleNet": lambda: stem(ShuffleBlock(12), ShuffleBlock(12)),
    "ResNeXt": lambda: stem(ResNeXtBlock(12), ResNeXtBlock(12)),
}


@pytest.mark.parametrize("qconfig", QCONFIGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_convert_entirely(name: str, qconfig: str):
    x = torch.randn(3, 3, 16, 12)
    _, report = check_all_integer(NETWORKS[name](), x, qconfig=QCONFIGS[qconfig])
    assert report.integer_share_of_macs == 1.0


def test_the_up_path_shares_a_scale_with_what_it_is_joined_to():
    prepared = qatx.prepare(UNet("transposed"))
    assert (
        prepared.up1.output_fake_quantize is prepared.get_submodule("down1.0").output_fake_quantize
    )


def test_a_text_cnn_converts_entirely():
    words = torch.randint(0, 50, (3, 17))
    _, report = convert_exactly(TextCNN(), words)
    assert all(row.integer for row in report.rows)
    assert report.integer_share_of_macs == 1.0


@pytest.mark.parametrize("name", ["U-Net", "ShuffleNet"])
def test_files_of_all_operators_are_equal_however_often_they_are_saved(name: str):
    x = torch.randn(2, 3, 16, 12)
    converted, _ = convert_exactly(NETWORKS[name](), x)
    archives = []
    for _ in range(3):
        file = io.BytesIO()
        torch.jit.save(converted, file)
        archives.append(file.getvalue())
        converted = torch.jit.load(io.BytesIO(archives[-1]))
    assert archives[1] == archives[2]


RUN = """
import sys, torch, qatx
torch.set_num_threads(2)
model, x, expected = sys.argv[1:]
assert torch.equal(qatx.load(model)(torch.load(x)), torch.load(expected))
print(qatx._C.isa())
"""


class Everything(nn.Module):
    """Kernels of every family on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.net = UNet("bilinear")
        self.block = InvertedResidual(2, 70, nn.SiLU, nn.Sigmoid)
        self.up = nn.ConvTranspose2d(2, 8, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_shuffle(self.up(self.block(self.net(x))), 2)
        return torch.cat([y, F.pad(y[:, :1, 1:], (0, 0, 1, 0))], 1).flatten(1)


def test_every_instruction_set_gives_the_same_bits(tmp_path):
    x = torch.randn(2, 3, 16, 12)
    converted, _ = convert_exactly(Everything(), x)
    qatx.save(converted, tmp_path / "model.pt")
    torch.save(x, tmp_path / "x.pt")
    torch.save(converted(x), tmp_path / "y.pt")
    order = contract.INSTRUCTION_SETS
    for isa in order[: order.index(qatx._C.isa()) + 1]:
        result = subprocess.run(
            [
                sys.executable,
                "-c",
                RUN,
                *(str(tmp_path / name) for name in ("model.pt", "x.pt", "y.pt")),
            ],
            env={**os.environ, "QATX_MAX_ISA": isa},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stdout.split() == [isa], result.stderr


def test_dropout_in_place_is_left_out():
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3, inplace=True))
            self.scores = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(self.features(x), training=self.training, inplace=True)
            return self.scores(x)

    model, x = qatx.prepare(Classifier()), torch.rand(128, 6)
    qatx.calibrate(model, x)
    converted, report = qatx.convert(model, x[:1])
    assert all(row.integer for row in report.rows), str(report)
    assert qatx.verify(model, converted, x).ok
