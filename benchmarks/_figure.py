"""Bar charts of benchmark results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from _results import Row

COLUMNS = 5
OURS, OTHERS = "#1f77b4", "#b0b0b0"


def draw_ratios(rows: Sequence[Row], title: str, path: Path) -> None:
    """Times relative to the reference, one panel for each subject."""
    mpl.use("Agg")
    subjects = list(dict.fromkeys(row.subject for row in rows))
    columns = min(len(subjects), COLUMNS)
    lines = -(-len(subjects) // columns)
    figure, panels = plt.subplots(
        lines,
        columns,
        figsize=(2.6 * columns + 1.6, 3.2 * lines),
        sharey=True,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for panel in panels.flat[len(subjects) :]:
        panel.set_visible(False)
    for panel, subject in zip(panels.flat, subjects, strict=False):
        chosen = [row for row in rows if row.subject == subject and row.ratio is not None]
        names = [row.contender for row in chosen]
        ratios = [row.ratio for row in chosen]
        colors = [OURS if name.startswith("qatx") else OTHERS for name in names]
        bars = panel.barh(names, ratios, color=colors)
        panel.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
        panel.set_title(subject.replace(" ", "\n", 1), fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].invert_yaxis()
    panels[0][0].set_xlim(0, 1.2 * max(row.ratio or 1 for row in rows))
    figure.suptitle(f"{title}: time relative to {rows[0].ratio_to}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
