"""The results of a benchmark as tables, for the screen and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import rich.table
from _results import Row, Target

LEGEND = (
    "Times: median milliseconds, and their ratio to the reference. Memory: MB kept for the "
    "backward / MB at the peak. *: other programs were running."
)


@dataclass(frozen=True)
class Table:
    """A title, a header and rows of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: range  # the columns that are aligned to the right

    def markdown(self) -> str:
        rule = ["---:" if i in self.figures else "---" for i in range(len(self.header))]
        return "\n".join(f"| {' | '.join(line)} |" for line in (self.header, rule, *self.rows))

    def rich(self) -> rich.table.Table:
        table = rich.table.Table(title=self.title, title_justify="left")
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if i in self.figures else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def all_tables(rows: Sequence[Row], targets: Sequence[Target]) -> list[Table]:
    """A table for each setting, one for its memory where that was measured, and the targets."""
    tables = []
    for setting in _unique(row.setting for row in rows):
        chosen = [row for row in rows if row.setting == setting]
        tables.append(_pivot(setting, chosen, _time))
        if any(row.kept_bytes is not None for row in chosen):
            tables.append(_pivot(f"{setting}, memory", chosen, _memory))
    if targets:
        tables.append(_targets_table(targets))
    return tables


def _pivot(title: str, rows: Sequence[Row], cell: Callable[[Row], str]) -> Table:
    subjects = _unique(row.subject for row in rows)
    cells = {(row.contender, row.subject): cell(row) for row in rows}
    return Table(
        title,
        ["", *subjects],
        [
            [contender, *(cells.get((contender, subject), "") for subject in subjects)]
            for contender in _unique(row.contender for row in rows)
        ],
        figures=range(1, len(subjects) + 1),
    )


def _time(row: Row) -> str:
    digits = 3 if row.median_ms < 1 else 2 if row.median_ms < 10 else 1
    ratio = "" if row.ratio is None else f" ({row.ratio:.2f})"
    doubt = " *" if row.disturbed else ""
    return f"{row.median_ms:.{digits}f}{ratio}{doubt}"


def _memory(row: Row) -> str:
    if row.kept_bytes is None or row.peak_bytes is None:
        return ""
    return f"{row.kept_bytes / 1e6:.1f} / {row.peak_bytes / 1e6:.1f}"


def _targets_table(targets: Sequence[Target]) -> Table:
    """One line for each target: in how many cases it is reached, and the worst of them."""
    lines = []
    for name in _unique(target.target for target in targets):
        cases = [target for target in targets if target.target == name]
        reached = sum(target.reached for target in cases)
        worst = min(cases, key=lambda target: target.margin)
        verdict = "yes" if reached == len(cases) else f"no: {reached} of {len(cases)}"
        lines.append([name, verdict, f"{worst.figure:.2f}", worst.case])
    return Table("targets", ["target", "reached", "worst", "where"], lines, range(2, 3))


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
