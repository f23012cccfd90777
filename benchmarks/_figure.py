"""Bar charts of benchmark results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from _results import Row

OURS, OTHERS = "#1f77b4", "#b0b0b0"


def draw_ratios(rows: Sequence[Row], title: str, path: Path) -> None:
    """Times relative to the reference, one panel for each subject."""
    mpl.use("Agg")
    subjects = list(dict.fromkeys(row.subject for row in rows))
    figure, panels = plt.subplots(
        1,
        len(subjects),
        figsize=(2.6 * len(subjects) + 1.6, 3.2),
        sharey=True,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, subject in zip(panels[0], subjects, strict=True):
        chosen = [row for row in rows if row.subject == subject and row.ratio is not None]
        names = [row.contender for row in chosen]
        ratios = [row.ratio for row in chosen]
        colors = [OURS if name.startswith("qatx") else OTHERS for name in names]
        bars = panel.barh(names, ratios, color=colors)
        panel.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        panel.set_title(subject.replace(" ", "\n", 1), fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].invert_yaxis()
    panels[0][0].set_xlim(0, 1.2 * max(row.ratio or 1 for row in rows))
    figure.suptitle(f"{title}: time relative to {rows[0].ratio_to}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
