"""Puts the results of a benchmark into the documentation: its JSON, a figure, and tables.

A page takes a table between two lines: `<!-- NAME: TITLE -->` and `<!-- end of NAME -->`, where
TITLE is that of a table which the benchmark prints, or "machine".
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from _figure import draw_ratios
from _results import Row, read
from _tables import MISSING, all_tables

ROOT = Path(__file__).resolve().parent.parent
PERFORMANCE = ROOT / "docs/performance.md"
PAGES = {  # all others: PERFORMANCE
    "calibration": (ROOT / "docs/calibration.md", ROOT / "docs/ptq.md"),
}
RESULTS, FIGURES = ROOT / "docs/results", ROOT / "docs/figures"

# The setting that the figure of a benchmark shows.
FIGURE_SETTINGS = {
    "fake-quantize": "forward + backward, float32, 2 threads",
    "int8-inference": "batch 1, 2 threads",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="of a benchmark, as in `make bench-NAME`")
    name: str = parser.parse_args().name
    stem = name.replace("-", "_")

    kept = RESULTS / f"{stem}.json"
    shutil.copy(ROOT / f"build/bench/{name}.json", kept)
    machine, rows, targets = read(kept)
    if name == "calibration":
        from _calibration_figures import draw_calibration

        draw_calibration(rows, FIGURES / f"{stem}.png")
    elif name in FIGURE_SETTINGS:
        setting = FIGURE_SETTINGS[name]
        chosen = [row for row in rows if isinstance(row, Row) and row.setting == setting]
        draw_ratios(chosen, setting, FIGURES / f"{stem}.png")

    blocks = {table.title: table.markdown() for table in all_tables(rows, targets)}
    blocks.setdefault(MISSING, "Nobody is missing.")
    blocks["machine"] = describe(machine, kept)
    for page in PAGES.get(name, (PERFORMANCE,)):
        page.write_text(fill(page.read_text(), name, blocks))


def describe(machine: dict[str, Any], results: Path) -> str:
    """The machine in a sentence, and where all figures are."""
    link = results.relative_to(ROOT / "docs")
    peers = "".join(f"{name} {version}, " for name, version in machine["peers"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, kernels for {machine['isa']}, "
        f"torch {machine['torch']}, {peers}qatx {machine['qatx']}, {machine['date'][:10]}. "
        f"All figures: [{results.name}]({link})."
    )


def fill(page: str, name: str, blocks: dict[str, str]) -> str:
    """The page with every block of this benchmark written anew.

    Raises:
        KeyError: The page asks for a table that there is not.
    """
    end = f"<!-- end of {name} -->"
    pattern = re.compile(f"(<!-- {name}: (.*?) -->\n).*?{end}", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}{blocks[match[2]]}\n{end}", page)


if __name__ == "__main__":
    main()
