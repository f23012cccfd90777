"""What `qatx.calibrate` tells about a model."""

from __future__ import annotations

import base64
import html
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from qatx._C import Observer, QuantSpec
from qatx._ranges import RangeChoice, RangeMethod

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METHODS: tuple[RangeMethod, ...] = tuple(m for m in get_args(RangeMethod) if m != "best")
_PLOTTED_BINS = 256


@dataclass(frozen=True, kw_only=True)
class CalibrationRow:
    """What was seen of one quantized tensor, and what was made of it.

    Attributes:
        name: Path of the fake quantizer.
        role: "weight" or "activation".
        spec: How the tensor is quantized.
        method: How its range was chosen.
        choice: The range, for each scale, and what it is expected to cost.
        observer: The histogram of an activation, for each scale; of a weight, for the whole tensor.
        options: What else the methods were told: `percentile`, `norm`.
    """

    name: str
    role: str
    spec: QuantSpec
    method: RangeMethod
    choice: RangeChoice
    observer: Observer
    options: dict[str, float]
    _ranges: dict[RangeMethod, RangeChoice] = field(default_factory=dict, repr=False, compare=False)

    @property
    def min(self) -> float:
        """The smallest finite value."""
        return float(self.observer.min.min())

    @property
    def max(self) -> float:
        """The largest finite value."""
        return float(self.observer.max.max())

    @property
    def count(self) -> int:
        """Finite values."""
        return int(self.observer.count.sum())

    @property
    def nan_count(self) -> int:
        """Values that are NaN; they were left out."""
        return int(self.observer.nan_count.sum())

    @property
    def inf_count(self) -> int:
        """Infinities; they were left out."""
        return int(self.observer.inf_count.sum())

    @property
    def clipped_share(self) -> float:
        """The share of the values that the codes do not reach, 0 to 1."""
        return float(self.choice.clipped_share.mean())

    @property
    def sqnr(self) -> float:
        """The expected signal to quantization noise, in decibels."""
        return self.choice.sqnr

    def ranges(self) -> dict[RangeMethod, RangeChoice]:
        """What each method would choose; of a weight, whose values are not kept, the one in use."""
        if not self._ranges:
            if self.role == "weight":
                self._ranges[self.method] = self.choice
            else:
                for method in _METHODS:
                    chosen = self.observer.choose(self.spec, method, **self.options)
                    self._ranges[method] = RangeChoice(*chosen)
        return self._ranges


@dataclass(frozen=True)
class CalibrationReport:
    """What was seen and chosen; `print` shows it as a table.

    Attributes:
        rows: One for each quantized tensor, in the order of the model's modules.
        samples: How many samples were seen, on all ranks.
        warnings: What was warned of.
    """

    rows: tuple[CalibrationRow, ...]
    samples: int
    warnings: tuple[str, ...]

    def __getitem__(self, name: str) -> CalibrationRow:
        """The row of a fake quantizer, by its path, or by that of a layer whose output it is."""
        for candidate in (name, f"{name}.output_fake_quantize"):
            for row in self.rows:
                if row.name == candidate:
                    return row
        raise KeyError(f"CalibrationReport: no quantized tensor {name!r}")

    def table(self, *, width: int = 140) -> str:
        """The report as text: what was chosen, then what each method would choose.

        Args:
            width: Columns of characters.
        """
        chosen = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        chosen.add_column("tensor", overflow="fold")
        for column in ("bits", "values", "seen", "method", "range", "clipped", "SQNR [dB]"):
            chosen.add_column(column, justify="left" if column == "method" else "right")
        for row in self.rows:
            chosen.add_row(
                row.name,
                str(row.spec.bits),
                f"{row.count:,}" + _left_out(row),
                _interval(row.min, row.max),
                row.method,
                _range(row.choice),
                f"{row.clipped_share:.3%}",
                f"{row.sqnr:.1f}",
            )
        compared = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        compared.add_column("activation", overflow="fold")
        for method in _METHODS:
            compared.add_column(method, justify="right")
        for row in self.rows:
            if row.role == "activation":
                ranges = row.ranges()
                cells = [f"{_range(ranges[m])}\n{ranges[m].sqnr:.1f} dB" for m in _METHODS]
                compared.add_row(row.name, *cells)
        console = Console(
            width=width, file=io.StringIO(), color_system=None, markup=False, highlight=False
        )
        with console.capture() as captured:
            console.print(chosen)
            console.print(
                f"Calibrated with {self.samples:,} samples. SQNR: expected, of the histogram."
            )
            if compared.row_count:
                console.print(compared)
            for warning in self.warnings:
                console.print(f"Warning: {warning}")
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def __str__(self) -> str:
        return self.table()

    def plot(self, name: str) -> Figure:
        """Draws a tensor's histogram, with the range that each method would choose.

        Args:
            name: As in `report[name]`.

        Returns:
            A matplotlib figure, for `figure.savefig(path)`.

        Raises:
            ImportError: matplotlib is not installed.
            KeyError: There is no such tensor.
        """
        figure_class = _matplotlib_figure()
        row = self[name]
        edges, counts = _histogram(row.observer)
        figure: Figure = figure_class(figsize=(8, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.stairs(counts, edges, fill=True, color="0.75")
        axes.set_yscale("log")
        axes.set(xlabel="value", ylabel="count", title=row.name)
        for i, (method, choice) in enumerate(row.ranges().items()):
            low, high = float(choice.low.min()), float(choice.high.max())
            is_used = method == row.method
            label = f"{method}: {_range(choice)}, {choice.sqnr:.1f} dB"
            for end in (low, high):
                axes.axvline(
                    end,
                    color=f"C{i}",
                    linestyle="-" if is_used else "--",
                    linewidth=2 if is_used else 1,
                    label=label if end == low else None,
                )
        axes.legend(fontsize="small")
        return figure

    def html(self, path: str | Path) -> None:
        """Writes the table and all plots into one HTML file that needs nothing else.

        Args:
            path: The file; it is replaced.

        Raises:
            ImportError: matplotlib is not installed.
        """
        _matplotlib_figure()
        parts = [
            "<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>Calibration</title>",
            f"<h1>Calibration</h1><pre>{html.escape(self.table(width=180))}</pre>",
        ]
        for row in self.rows:
            picture = io.BytesIO()
            self.plot(row.name).savefig(picture, format="png", dpi=80)
            encoded = base64.b64encode(picture.getvalue()).decode()
            text = html.escape(row.name, quote=True)
            parts.append(f"<p><img alt='{text}' src='data:image/png;base64,{encoded}'></p>")
        Path(path).write_text("\n".join(parts) + "\n</html>\n", encoding="utf-8")


def _matplotlib_figure() -> type[Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "CalibrationReport: plots need matplotlib; install it (pip install matplotlib)"
        ) from error
    return Figure


def _histogram(observer: Observer) -> tuple[list[float], list[int]]:
    """Edges and counts of at most `_PLOTTED_BINS` bins for all scales together."""
    counts, widths = observer.histogram, observer.bin_width.flatten()
    width = float(widths.max())
    total = torch.zeros(counts.shape[1], dtype=torch.int64)
    side = counts.shape[1] // 2
    for row, own in zip(counts, widths.tolist(), strict=True):
        shift = round(math.log2(width / own))
        magnitude = torch.arange(side) >> shift
        total.index_add_(0, side + magnitude, row[side:])
        total.index_add_(0, side - 1 - magnitude, row[:side].flip(0))
    used = total.nonzero().flatten()
    if used.numel() == 0:
        return [0.0, 1.0], [0]
    begin, end = min(int(used[0]), side), max(int(used[-1]) + 1, side)
    step = max(1, math.ceil((end - begin) / _PLOTTED_BINS))
    pieces = total[begin:end].split(step)
    edges = [(begin + i * step - side) * width for i in range(len(pieces) + 1)]
    return edges, [int(piece.sum()) for piece in pieces]


def _interval(low: float, high: float) -> str:
    return f"[{low:.4g}, {high:.4g}]"


def _range(choice: RangeChoice) -> str:
    return _interval(float(choice.low.min()), float(choice.high.max()))


def _left_out(row: CalibrationRow) -> str:
    parts = [f"{n:,} {kind}" for n, kind in ((row.nan_count, "NaN"), (row.inf_count, "Inf")) if n]
    return f" (and {', '.join(parts)})" if parts else ""
