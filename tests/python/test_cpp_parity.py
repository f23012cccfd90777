"""Training in C++ is training in Python, bit for bit: tests/cpp/parity/train.cpp does the same."""

import dataclasses
import subprocess
import warnings
from pathlib import Path

import pytest
import qatx
import torch
import torch.nn.functional as F
from archives import records
from qatx.nn import (
    Add,
    Conv1d,
    Conv2d,
    ConvBn2d,
    ConvTranspose2d,
    FakeQuantize,
    Linear,
    ScaledDotProductAttention,
)
from qatx.nn._make import activation_fake_quantize
from torch import Tensor, nn

PROGRAM = Path(__file__).parents[2] / "build/cmake/bin/qatx_parity"
STEPS = 100
QCONFIGS = {
    "lsq": qatx.QConfig(),
    "ranges": qatx.QConfig(
        weight=qatx.QuantSpec(bits=4, axis=0),
        weight_quantizer="dorefa",
        activation_quantizer="moving_average",
        activation_range="percentile",
    ),
    "rounding": qatx.QConfig(
        activation_quantizer="pact", power_of_two=True, stochastic_rounding=True
    ),
    "dynamic": qatx.QConfig(activation_quantizer="dynamic"),
}


class QuantStub(nn.Module):
    """What qatx::nn::QuantStub is."""

    def __init__(self, qconfig: qatx.QConfig) -> None:
        super().__init__()
        self.output_fake_quantize: FakeQuantize = activation_fake_quantize(qconfig)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output_fake_quantize(x)
        return y


class Net(nn.Module):
    def __init__(self, qconfig: qatx.QConfig) -> None:
        super().__init__()
        self.stub = QuantStub(qconfig)
        self.stem = ConvBn2d(3, 8, 3, padding=1, qconfig=qconfig, relu=True)
        self.body = Conv2d(8, 8, 3, padding=1, qconfig=qconfig, quantize_output=False)
        self.add = Add(qconfig=qconfig, relu=True)
        self.up = ConvTranspose2d(8, 4, 2, stride=2, groups=2, qconfig=qconfig, relu="relu6")
        self.line = Conv1d(4, 4, 3, stride=4, qconfig=qconfig)
        symmetric = dataclasses.replace(qconfig, activation=qatx.QuantSpec())
        self.memory = Linear(16, 16, qconfig=symmetric)
        self.attention = ScaledDotProductAttention(qconfig=qconfig)
        self.attended = QuantStub(qconfig)
        self.head = Linear(256, 5, qconfig=qconfig, quantize_output=False)

    def forward(self, x0: Tensor) -> Tensor:
        y = self.stem(self.stub(x0))
        y = self.add(y, self.body(y))
        y = self.line(self.up(y).flatten(2)).reshape(-1, 16, 16)
        keys = self.memory(y)
        y = self.attended(self.attention(y, keys, keys))
        scores: Tensor = self.head(y.flatten(1))
        return scores


@pytest.fixture
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(qconfig: qatx.QConfig) -> tuple[Net, dict[str, Tensor], Tensor]:
    """The network, what happened, an example."""
    torch.manual_seed(0)
    net = Net(qconfig)
    images = torch.randn(STEPS, 4, 3, 8, 8).cumsum(3)
    labels = images.select(4, 7).mean((2, 3)).gt(0).long()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", qatx.CalibrationWarning)
        qatx.calibrate(net, images.flatten(0, 1))
    groups = qatx.parameter_groups(net, weight_decay=1e-3)
    optimizer = torch.optim.SGD(groups, lr=0.005, momentum=0.9)
    losses = []
    result = {}
    for step in range(STEPS):
        if step == STEPS - 10:
            qatx.freeze_batch_norm(net)
        loss = F.cross_entropy(net(images[step]), labels[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if step == 0:
            for name, parameter in net.named_parameters():
                if parameter.grad is not None:
                    result[f"gradient.{name}"] = parameter.grad.clone()
    result["losses"] = torch.stack(losses)
    for name, value in net.state_dict().items():
        if not name.endswith("_extra_state"):
            result[f"state.{name}"] = value
    return net, result, images[0]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("config", QCONFIGS)
def test_losses_state_and_program_are_equal(config: str, tmp_path: Path) -> None:
    subprocess.run([PROGRAM, config, tmp_path], check=True)
    expected = dict(torch.load(tmp_path / "run.pt"))
    net, result, example = train(QCONFIGS[config])
    losses = result["losses"]
    assert losses[-20:].mean() < losses[:20].mean()
    assert result.keys() == expected.keys()
    different = [name for name, value in result.items() if not torch.equal(value, expected[name])]
    assert different == []
    converted, report = qatx.convert(net, example)
    assert report.integer_share_of_macs == 1.0
    # Saved once in C++, once in Python, each after a load: names of values follow from loading.
    qatx.save(converted, tmp_path / "python.pt")
    qatx.save(qatx.load(tmp_path / "converted.pt"), tmp_path / "cpp.pt")
    assert records(tmp_path / "cpp.pt") == records(tmp_path / "python.pt")
