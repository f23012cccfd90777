"""The report of `qatx.calibrate`."""

import builtins
import math
import re

import pytest
import qatx
import torch
from models import Residual
from qatx import CalibrationReport, QConfig, QuantSpec


@pytest.fixture(scope="module")
def report() -> CalibrationReport:
    torch.manual_seed(0)
    four = QuantSpec(bits=4, signed=False, symmetric=False)
    model = qatx.prepare(Residual(), QConfig(activation=four, activation_range="mse"))
    x = torch.randn(16, 3, 8, 8)
    x[0, 0, 0, :3] = torch.tensor([math.nan, math.inf, 20.0])
    return qatx.calibrate(model, x)


def test_has_a_row_for_every_tensor(report):
    assert {row.role for row in report.rows} == {"weight", "activation"}
    assert report.samples == 16
    row = report["x_fake_quantize"]
    assert row.method == "mse"
    assert (row.nan_count, row.inf_count) == (1, 1)
    assert row.count == 16 * 3 * 64 - 2
    assert row.max == 20
    assert float(row.choice.high) < 20
    assert row.clipped_share > 0
    assert report["conv1"] is report["conv1.output_fake_quantize"]
    assert report["conv1.weight_fake_quantize"].method == "min_max"
    with pytest.raises(KeyError, match="no quantized tensor 'conv7'"):
        report["conv7"]


def test_ranges_are_those_of_all_methods(report):
    ranges = report["x_fake_quantize"].ranges()
    assert set(ranges) == {"min_max", "moving_average", "percentile", "mse", "kl", "lsq"}
    assert float(ranges["min_max"].high) == 20
    assert ranges["mse"].sqnr >= max(choice.sqnr for choice in ranges.values()) - 1e-9
    assert set(report["fc.weight_fake_quantize"].ranges()) == {"min_max"}


def test_expected_sqnr_is_about_the_true_one():
    torch.manual_seed(0)
    model = qatx.prepare(Residual())
    x = torch.randn(64, 3, 8, 8)
    row = qatx.calibrate(model, x)["x_fake_quantize"]
    noise = (model.x_fake_quantize(x).detach() - x).square().mean()
    assert row.sqnr == pytest.approx(10 * math.log10(x.square().mean() / noise), abs=0.2)


def test_table(report):
    text = str(report)
    assert text == report.table()
    line = next(line for line in text.splitlines() if "x_fake_quantize" in line)
    assert "(and 1 NaN, 1 Inf)" in text
    assert "mse" in line
    assert all(method in text for method in ("moving_average", "percentile", "kl", "lsq"))
    assert re.search(r"\d+\.\d dB", text)
    assert "Calibrated with 16 samples" in text
    assert "Warning: 16 samples are few" in text
    assert max(map(len, report.table(width=100).splitlines())) <= 100


def test_plot_shows_the_histogram_and_the_ranges(report):
    figure = report.plot("x_fake_quantize")
    (axes,) = figure.axes
    (stairs,) = axes.patches
    values, edges, _ = stairs.get_data()
    row = report["x_fake_quantize"]
    assert sum(values) == row.count
    assert edges[0] <= row.min
    assert row.max <= edges[-1]
    assert [text.get_text().split(":")[0] for text in axes.get_legend().get_texts()] == [
        "min_max", "moving_average", "percentile", "mse", "kl", "lsq",
    ]  # fmt: skip


def test_plots_of_many_scales_hold_all_counts():
    spec = QuantSpec(bits=8, signed=False, symmetric=False, axis=1)
    model = qatx.nn.FakeQuantize(spec, role="activation", scale_shape=(3,))
    x = torch.randn(50, 3) * torch.tensor([1.0, 100.0, 0.01])
    figure = qatx.calibrate(model, x).plot("")
    assert sum(figure.axes[0].patches[0].get_data().values) == 150


def test_html_stands_alone(report, tmp_path):
    path = tmp_path / "report.html"
    report.html(path)
    text = path.read_text()
    assert text.count("data:image/png;base64,") == len(report.rows)
    assert "Calibrated with 16 samples" in text
    assert "src='http" not in text


def test_without_matplotlib_the_table_still_works(report, tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert report.table()
    with pytest.raises(ImportError, match="plots need matplotlib; install it"):
        report.plot("fc")
    with pytest.raises(ImportError, match="plots need matplotlib"):
        report.html(tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
