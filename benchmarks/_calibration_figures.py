"""The figures of calibration.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from _calibration_accuracy import BY_METHOD, BY_SAMPLES, FLOAT
from _calibration_networks import DEMO, OUTLIERS
from _results import Accuracy, Result


def draw_calibration(rows: Sequence[Result], path: Path) -> None:
    """Accuracy by number of samples: a panel for each network, a line for each method."""
    mpl.use("Agg")
    accuracies = [row for row in rows if isinstance(row, Accuracy)]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for panel, network in zip(panels, (DEMO, OUTLIERS), strict=True):
        chosen = [row for row in accuracies if row.setting == f"{BY_SAMPLES}, {network}"]
        for method in dict.fromkeys(row.contender for row in chosen):
            line = [row for row in chosen if row.contender == method]
            samples = [int(row.subject.replace(",", "")) for row in line]
            panel.plot(samples, [100 * row.accuracy for row in line], marker="o", label=method)
        wanted = f"{BY_METHOD}: {network}, W8A8"
        exact = next(row for row in accuracies if (row.case, row.contender) == (wanted, FLOAT))
        panel.axhline(100 * exact.accuracy, color="0.4", linestyle="--", label=FLOAT)
        panel.set_xscale("log")
        panel.set(title=f"{network}, W8A8", xlabel="samples", ylabel="accuracy [%]")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
