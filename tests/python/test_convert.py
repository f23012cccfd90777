"""`qatx.convert`: integers that equal the trained model."""

import io
import os
import random
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import contract
import pytest
import qatx
import torch
from models import Residual, learn_statistics
from torch import Tensor, nn
from torch.nn import functional as F

W4A4 = qatx.QConfig(
    weight=qatx.QuantSpec(bits=4, signed=True, symmetric=True, axis=0),
    activation=qatx.QuantSpec(bits=4, signed=False, symmetric=False),
)
QCONFIGS = {
    "W8A8": qatx.QConfig(),
    "W4A4": W4A4,
    "W2A8, signed": qatx.QConfig(
        weight=qatx.QuantSpec(bits=2, signed=True, symmetric=True, axis=0),
        activation=qatx.QuantSpec(bits=8, signed=True, symmetric=True),
    ),
    "per-tensor weights": qatx.QConfig(
        weight=qatx.QuantSpec(bits=8, signed=True, symmetric=True),
        activation=qatx.QuantSpec(bits=7, signed=True, symmetric=False),
    ),
}


def ready(model: nn.Module, x: Tensor, qconfig: qatx.QConfig | None = None) -> nn.Module:
    prepared = qatx.prepare(learn_statistics(model, x).eval(), qconfig)
    qatx.calibrate(prepared, x)
    return prepared.eval()


def check_exact(model: nn.Module, x: Tensor) -> qatx._report.Report:
    converted, report = qatx.convert(model, x[:1])
    assert torch.equal(converted(x), contract.evaluate(model, x))
    return report


class RandomNet(nn.Module):
    """Convolutions of every kind, with and without batch normalization, pooling and residuals."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choose = random.Random(seed)
        self.layers = nn.ModuleList()
        self.residual = []
        channels = self.channels = choose.choice([1, 3, 4, 16])
        size = 12
        for _ in range(4):
            kind = choose.choice(["conv", "conv", "depthwise", "grouped", "pointwise", "residual"])
            out = (
                channels
                if kind in ("depthwise", "residual")
                else choose.choice([4, 12, 16, 40, 64])
            )
            groups = 1
            if kind == "depthwise":
                groups = channels
            elif kind == "grouped" and channels % 4 == 0:
                groups = choose.choice([2, 4])
            kernel = 1 if kind == "pointwise" else choose.choice([1, 2, 3, (3, 2)])
            stride = 1 if kind == "residual" else choose.choice([1, 1, 2, (1, 2)])
            dilation = choose.choice([1, 1, 2])
            if kind == "residual" or size < 6:
                kernel, padding, dilation, stride = 3, 1, 1, 1
            else:
                padding = choose.choice([0, 1, (0, 1)])
            conv = nn.Conv2d(
                channels, out, kernel, stride, padding, dilation, groups, choose.random() < 0.5
            )
            parts: list[nn.Module] = [conv]
            if choose.random() < 0.7:
                parts.append(nn.BatchNorm2d(out))
            if kind != "residual":
                parts.append(choose.choice([nn.ReLU(), nn.ReLU6(), nn.Identity()]))
                if choose.random() < 0.3 and size >= 8:
                    parts.append(
                        choose.choice(
                            [
                                nn.MaxPool2d(2),
                                nn.AvgPool2d(2),
                                nn.MaxPool2d(3, 1, 1, ceil_mode=True),
                            ]
                        )
                    )
            layer = nn.Sequential(*parts)
            self.layers.append(layer)
            self.residual.append(kind == "residual")
            with torch.no_grad():
                probe = torch.zeros(1, channels, size, size) if _ == 0 else self.probe
                self.probe = layer.eval()(probe)
            size = min(self.probe.shape[2:])
            channels = out
        self.head = nn.Linear(channels, 7)
        self.squeeze = choose.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        for layer, residual in zip(self.layers, self.residual, strict=True):
            x = F.relu(layer(x) + x) if residual else layer(x)
        x = x.mean((2, 3)) if self.squeeze else F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.head(x)


@pytest.mark.parametrize("qconfig", QCONFIGS)
@pytest.mark.parametrize("seed", range(15))
def test_random_networks_equal_the_contract_bit_for_bit(seed: int, qconfig: str):
    torch.manual_seed(seed)
    net = RandomNet(seed)
    x = torch.randn(5, net.channels, 12, 12)
    report = check_exact(ready(net, x, QCONFIGS[qconfig]), x)
    assert report.integer_share_of_macs == 1.0


def test_trained_scales_and_statistics_are_what_is_converted():
    x = torch.randn(16, 3, 8, 8)
    model = ready(Residual(), x)
    optimizer = torch.optim.SGD(qatx.parameter_groups(model), lr=0.05)
    model.train()
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    check_exact(model, x)
    qatx.freeze_batch_norm(model)
    check_exact(model, x)


def test_layers_made_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.input = qatx.nn.FakeQuantize(qatx.QConfig().activation, role="activation")
            self.conv = qatx.nn.ConvBn2d(3, 8, 3, relu=True)
            self.fc = qatx.nn.Linear(8, 4, quantize_output=False)

        def forward(self, x):
            return self.fc(self.conv(self.input(x)).flatten(2).transpose(1, 2))

    x = torch.randn(2, 3, 6, 6)
    model = Net()
    qatx.calibrate(model, x)
    converted, report = qatx.convert(model, x)
    assert all(row.integer for row in report.rows)
    assert torch.equal(converted(x), contract.evaluate(model, x))


def test_other_batch_and_image_sizes_than_traced():
    x = torch.randn(6, 3, 8, 8)
    model = ready(Residual(), x)
    converted, _ = qatx.convert(model, x[:2])
    together = converted(x)
    assert torch.equal(together, torch.cat([converted(image[None]) for image in x]))
    larger = torch.randn(2, 3, 13, 10)
    assert torch.equal(converted(larger), contract.evaluate(model, larger))
    assert converted(x[:0]).shape == (0, 5)


def test_input_layouts_and_special_values():
    x = torch.randn(2, 3, 8, 8)
    model = ready(Residual(), x)
    converted, _ = qatx.convert(model, x)
    expected = converted(x)
    assert torch.equal(converted(x.contiguous(memory_format=torch.channels_last)), expected)
    assert torch.equal(converted(x.repeat(1, 1, 2, 1)[:, :, :8]), expected)
    hole = x.clone()
    hole[0, 0, 0, 0] = float("nan")  # counts as 0
    zero = x.clone()
    zero[0, 0, 0, 0] = 0.0
    assert torch.equal(converted(hole), converted(zero))
    assert torch.isfinite(converted(x * float("inf"))).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), "must be float32, got Double"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16), "must be float32, got BFloat16"),
        (torch.zeros(1, 4, 8, 8), "takes 3 channels"),
        (torch.zeros(3, 8, 8), "takes inputs of 4 dimensions"),
        (torch.zeros(1, 3, 8, 8, device="meta"), "must be a dense tensor on the CPU, got meta"),
    ],
)
def test_inputs_that_a_program_cannot_take(x: Tensor, message: str):
    images = torch.randn(2, 3, 8, 8)
    converted, _ = qatx.convert(ready(Residual(), images), images)
    with pytest.raises(RuntimeError, match=message):
        converted(x)


class Mixed(nn.Module):
    """Parts that have no integer form, between parts that have one; two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.reflect = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.up = nn.Upsample(scale_factor=2, mode="bicubic")
        self.conv2 = nn.Conv2d(8, 4, 1)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        y = F.silu(self.conv1(x))
        z = self.up(self.reflect(y)) * gate
        z = self.conv2(z)
        return self.fc(z.mean((2, 3))).softmax(1), y


def test_what_has_no_integer_form_stays_float():
    x, gate = torch.randn(4, 3, 8, 8), torch.rand(4, 8, 16, 16)
    model = qatx.prepare(Mixed())
    qatx.calibrate(model, [(x, gate)], forward=lambda m, batch: m(*batch))
    converted, report = qatx.convert(model, (x, gate))
    for got, expected in zip(converted(x, gate), model.eval()(x, gate), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-3)
    stayed = {row.kind: row.reason for row in report.rows if not row.integer}
    assert stayed["aten::silu"] == "input is not fake-quantized"
    assert "aten::softmax" not in stayed  # of what an integer layer makes, in its program
    integer = [row.name for row in report.rows if row.integer and row.macs]
    assert integer == ["conv1", "conv2", "fc"]
    assert 0 < report.integer_share_of_macs < 1
    assert stayed["aten::upsample_bicubic2d"] == "has no integer form"


def test_report_counts():
    images = torch.randn(2, 3, 8, 8)
    _, report = qatx.convert(ready(Residual(), images), images[:1])
    rows = {row.name: row for row in report.rows if row.weight_bytes}
    assert {name: row.weight_bytes for name, row in rows.items()} == {
        "stem.0": 8 * 3 * 9,
        "conv1": 8 * 8 * 9,
        "conv2": 8 * 8 * 9,
        "fc": 40,
    }
    assert {name: row.macs for name, row in rows.items()} == {
        "stem.0": 8 * 3 * 9 * 64,
        "conv1": 8 * 8 * 9 * 64,
        "conv2": 8 * 8 * 9 * 64,
        "fc": 40,
    }


def test_files_are_equal_however_often_they_are_saved(tmp_path):
    images = torch.randn(2, 3, 8, 8)
    converted, _ = qatx.convert(ready(Residual(), images), images)
    expected = converted(images)
    qatx.save(converted, tmp_path / "a.pt")
    loaded = qatx.load(tmp_path / "a.pt")
    assert torch.equal(loaded(images), expected)
    archives = []
    for _ in range(2):
        archive = io.BytesIO()
        torch.jit.save(loaded, archive)
        archives.append(archive.getvalue())
        loaded = torch.jit.load(io.BytesIO(archives[-1]))
    assert archives[0] == archives[1]


RUN = """
import sys, torch, qatx
print(qatx._C.isa())
torch.set_num_threads(int(sys.argv[3]))
x = torch.load(sys.argv[2])
print(sum(hash(v) for v in qatx.load(sys.argv[1])(x).flatten().tolist()))
"""


def run(isa: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        env={**os.environ, "QATX_MAX_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_instruction_set_and_number_of_threads_gives_the_same_bits(tmp_path):
    net = RandomNet(3)
    x = torch.randn(5, net.channels, 12, 12)
    converted, _ = qatx.convert(ready(net, x), x)
    qatx.save(converted, tmp_path / "model.pt")
    torch.save(x, tmp_path / "x.pt")
    expected = str(sum(hash(v) for v in converted(x).flatten().tolist()))
    order = contract.INSTRUCTION_SETS
    for isa in order[: order.index(qatx._C.isa()) + 1]:
        result = run(
            isa, str(tmp_path / "model.pt"), str(tmp_path / "x.pt"), "2" if isa == "avx2" else "1"
        )
        assert result.stdout.split() == [isa, expected], result.stderr


def test_an_unknown_instruction_set_is_an_error():
    result = run("sse9", "", "", "1")
    assert result.returncode != 0
    assert "QATX_MAX_ISA" in result.stderr
    assert "sse9" in result.stderr


def test_one_module_may_run_in_many_threads():
    images = torch.randn(8, 3, 8, 8)
    converted, _ = qatx.convert(ready(Residual(), images), images)
    expected = [converted(images[: n + 1]) for n in range(8)]
    wrong = []

    def work(n: int) -> None:
        results = [converted(images[: n + 1]) for _ in range(50)]
        wrong.extend(n for result in results if not torch.equal(result, expected[n]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_loading_without_qatx_says_what_is_missing(tmp_path):
    images = torch.randn(2, 3, 8, 8)
    converted, _ = qatx.convert(ready(Residual(), images), images)
    qatx.save(converted, tmp_path / "model.pt")
    script = "import sys, torch; torch.jit.load(sys.argv[1])"
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model.pt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "__torch__.torch.classes.qatx.Program" in result.stderr


def test_every_altered_byte_is_an_error_or_harmless(tmp_path):
    """A damaged file raises when it is loaded or run; it never crashes the process."""
    images = torch.randn(2, 3, 8, 8)
    converted, _ = qatx.convert(ready(Residual(), images), images)
    file = io.BytesIO()
    torch.jit.save(converted, file)
    original = file.getvalue()
    damage = random.Random(0)
    path = tmp_path / "damaged.pt"
    rejected = 0
    for _ in range(60):
        data = bytearray(original)
        data[damage.randrange(len(data))] ^= 1 << damage.randrange(8)
        path.write_bytes(bytes(data))
        try:
            qatx.load(path)(images)
        except RuntimeError:
            rejected += 1
    assert rejected > 10
    for length in (0, 1, 100, len(original) // 2, len(original) - 1):
        path.write_bytes(original[:length])
        with pytest.raises(RuntimeError, match=r"damaged\.pt"):
            qatx.load(path)


def test_writing_in_place_is_removed_or_refused():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.input = qatx.nn.FakeQuantize(qatx.QConfig().activation, role="activation")
            self.conv = qatx.nn.Conv2d(3, 4, 1, quantize_output=False)

        def forward(self, x):
            y = self.conv(self.input(x)).relu_()
            if refused:
                y[:, 0] = 0.0
            return y

    images = torch.randn(2, 3, 8, 8)
    refused = False
    model = InPlace()
    qatx.calibrate(model, images)
    assert check_exact(model, images).integer_share_of_macs == 1.0
    refused = True
    with pytest.raises(ValueError, match="writes in place with aten::"):
        qatx.convert(model, images)


class Wide(nn.Module):
    """Weights of 2.3 million parameters, so that what a file holds beside them is little."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(64, 256, 3, padding=1)
        self.up = nn.ConvTranspose2d(256, 64, 4, stride=2)
        self.fc = nn.Linear(64, 8192)
        self.head = nn.Linear(8192, 160)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.conv(x).relu()).relu()
        return self.head(self.fc(y.mean((2, 3))).relu())


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_take_as_many_bits_as_they_have(bits: int, tmp_path: Path):
    images = torch.randn(2, 64, 4, 4)
    qconfig = qatx.QConfig(weight=qatx.QuantSpec(bits=bits, axis=0))
    model = ready(Wide(), images, qconfig)
    converted, report = qatx.convert(model, images[:1])
    parameters = {"conv": 64 * 256 * 9, "up": 256 * 64 * 16, "fc": 64 * 8192, "head": 8192 * 160}
    weights = {row.name: row.weight_bytes for row in report.rows if row.weight_bytes}
    assert weights == {name: count * bits // 8 for name, count in parameters.items()}
    path = tmp_path / "model.pt"
    converted.save(str(path))
    scales_and_biases = 2 * 4 * (256 + 64 + 8192 + 160)
    assert path.stat().st_size <= 1.01 * (sum(weights.values()) + scales_and_biases) + 8192
    loaded = qatx.load(path)
    assert torch.equal(loaded(images), converted(images))
    assert torch.equal(loaded(images), contract.evaluate(model, images))


def test_an_altered_weight_is_noticed_where_torch_looks_at_no_checksum():
    images = torch.randn(2, 3, 8, 8)
    converted, _ = qatx.convert(ready(Residual(), images), images)
    file = io.BytesIO()
    torch.jit.save(converted, file)
    archive = bytearray(file.getvalue())
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        weights = [entries.read(name) for name in entries.namelist() if "/constants/" in name]
        weights += [entries.read(name) for name in entries.namelist() if "/data/" in name]
    largest = max(weights, key=len)
    assert len(largest) == 8 * 8 * 9  # the stored bytes of a convolution's integers
    archive[archive.index(largest) + 100] ^= 1
    with pytest.raises((RuntimeError, ValueError), match="altered or damaged"):
        torch.jit.load(io.BytesIO(archive))
