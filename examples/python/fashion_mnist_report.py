"""The demo's results: the table on screen, summary.json and the pictures."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import qatx
import torch
from fashion_mnist_train import History
from rich import box
from rich.table import Table
from torch import Tensor

matplotlib.use("Agg")  # pictures go to files, with or without a display
from matplotlib import pyplot as plt

_FLOAT_COLOR, _INTEGER_COLOR = "tab:blue", "tab:orange"


@dataclass(frozen=True)
class Row:
    """One model of the comparison; the first row is what the others are compared with."""

    model: str
    accuracy: float
    file_bytes: int
    ms_per_image: float  # at batch 1
    images_per_second: float  # at batch 64

    def ratios(self, reference: Row) -> dict[str, float]:
        """File size and speeds, as multiples of the reference's."""
        return {
            "file_bytes": self.file_bytes / reference.file_bytes,
            "speed_batch_1": reference.ms_per_image / self.ms_per_image,
            "speed_batch_64": self.images_per_second / reference.images_per_second,
        }


@dataclass(frozen=True)
class Check:
    """Something that the demo claims, with what was measured."""

    claim: str
    measured: str
    holds: bool


def check_claims(
    rows: Sequence[Row], agreements: Mapping[str, float], *, with_accuracy: bool
) -> list[Check]:
    """What the demo shows; accuracies are claimed for the whole of Fashion-MNIST only."""
    fp32, qat = rows[0], rows[2]
    ratios = qat.ratios(fp32)
    lost = 100 * (fp32.accuracy - qat.accuracy)
    size, one, many = ratios["file_bytes"], ratios["speed_batch_1"], ratios["speed_batch_64"]
    converted, cpp = agreements["converted_with_qat_model"], agreements["cpp_with_python"]
    accuracies = [
        Check("FP32 accuracy at least 92.5 %", f"{fp32.accuracy:.2%}", fp32.accuracy >= 0.925),
        Check("QAT INT8 loses at most 0.3 points", f"{lost:.2f}", lost <= 0.3),
    ]
    return [
        *(accuracies if with_accuracy else ()),
        Check("INT8 file at most 0.27x FP32's", f"{size:.3f}x", size <= 0.27),
        Check("INT8 at least 2x as fast at batch 1", f"{one:.2f}x", one >= 2),
        Check("INT8 at least 2x as fast at batch 64", f"{many:.2f}x", many >= 2),
        Check(
            "Converted predicts as the QAT model, 99.95 %",
            f"{converted:.2%}",
            converted >= 0.9995,
        ),
        Check("C++ predicts as Python, all images", f"{cpp:.2%}", cpp == 1.0),
    ]


def results_table(rows: Sequence[Row]) -> Table:
    """The comparison, one line a model."""
    table = Table("model", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for header in (
        "accuracy",
        "file\nkB",
        "batch 1\nms/image",
        "batch 64\nimages/s",
        "file\nx FP32",
        "batch 1\nx FP32",
        "batch 64\nx FP32",
    ):
        table.add_column(header, justify="right")
    for row in rows:
        ratios = row.ratios(rows[0])
        table.add_row(
            row.model,
            f"{row.accuracy:.2%}",
            f"{row.file_bytes / 1000:,.0f}",
            f"{row.ms_per_image:.3f}",
            f"{row.images_per_second:,.0f}",
            f"{ratios['file_bytes']:.3f}",
            f"{ratios['speed_batch_1']:.2f}",
            f"{ratios['speed_batch_64']:.2f}",
        )
    return table


def checks_table(checks: Sequence[Check]) -> Table:
    """The claims, with what was measured and whether they hold."""
    table = Table("claim", "measured", "holds", box=box.SIMPLE_HEAD)
    for check in checks:
        table.add_row(check.claim, check.measured, "[green]yes" if check.holds else "[red]NO")
    return table


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "qatx": qatx.__version__,
    }


def write_summary(
    path: Path, rows: Sequence[Row], checks: Sequence[Check], more: Mapping[str, Any]
) -> None:
    """Everything on the screen as JSON, with the machine."""
    summary = {
        "machine": machine(),
        **more,
        "rows": [
            {
                "model": row.model,
                "accuracy": row.accuracy,
                "file_bytes": row.file_bytes,
                "ms_per_image_batch_1": row.ms_per_image,
                "images_per_second_batch_64": row.images_per_second,
                "ratio_to_fp32": row.ratios(rows[0]),
            }
            for row in rows
        ],
        "checks": [vars(check) for check in checks],
    }
    path.write_text(json.dumps(summary, indent=2) + "\n")


def plot_training(float_history: History, qat_history: History, path: Path) -> None:
    """Loss of each step and accuracies after each epoch, one training after the other."""
    figure, (loss_axes, accuracy_axes) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    start = 0
    for history, label, color in (
        (float_history, "FP32", _FLOAT_COLOR),
        (qat_history, "QAT INT8", _INTEGER_COLOR),
    ):
        epochs = len(history.test_accuracies)
        steps_per_epoch = len(history.losses) // epochs
        losses = torch.tensor(history.losses)
        window = max(1, steps_per_epoch // 20)
        smooth = losses.unfold(0, window, window).mean(1)
        at = start + (torch.arange(len(smooth)) + 0.5) * window / steps_per_epoch
        loss_axes.plot(at.tolist(), smooth.tolist(), color=color, label=label)
        ends = range(start + 1, start + epochs + 1)
        test = [100 * value for value in history.test_accuracies]
        train = [100 * value for value in history.train_accuracies]
        accuracy_axes.plot(ends, test, "o-", color=color, label=f"{label}, test images")
        accuracy_axes.plot(ends, train, "s:", color=color, mfc="none", label=f"{label}, training")
        start += epochs
    loss_axes.set(ylabel="training loss", title="Training loss")
    accuracy_axes.set(ylabel="accuracy, %", title="Accuracy")
    for axes in (loss_axes, accuracy_axes):
        axes.set(xlabel="epoch", xlim=(0, start + 0.1))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_weights(name: str, weights: Tensor, integers: Tensor, path: Path) -> None:
    """Histograms of a layer's weights, in float and as the converted model's integers."""
    figure, (before, after) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    before.hist(weights.flatten().tolist(), bins=120, color=_FLOAT_COLOR)
    before.set(xlabel="weight", ylabel="count", title=f"{name}: float32")
    low, high = int(integers.min()), int(integers.max())
    edges = [value - 0.5 for value in range(low, high + 2)]
    after.hist(integers.flatten().tolist(), bins=edges, color=_INTEGER_COLOR)
    after.set(xlabel="integer", ylabel="count", title=f"{name}: int8, one scale per channel")
    for axes in (before, after):
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
