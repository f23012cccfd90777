"""Every operator that runs in integers, in networks of its own: equal to the contract."""

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
            self.function(SimpleNamespace(model=self, x=self.first(x), y=self.second(x)))
        )


def convert_exactly(model: nn.Module, *inputs: Tensor, qconfig=None, examples=None):
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


def test_a_prelu_with_a_parameter_for_each_channel_stays_float():
    model = Between(lambda s: s.model.activation(s.x), activation=nn.PReLU(8))
    _, report = convert_exactly(model, torch.randn(2, 3, 5, 5))
    assert {row.kind for row in report.rows if not row.integer} == {"aten::prelu"}


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
