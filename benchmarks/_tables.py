"""The results of a benchmark as tables, for the screen and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import rich.table
from _results import Accuracy, Entry, Instructions, Missing, Result, Row, Target

LEGEND = (
    "Times: median milliseconds, and their ratio to the reference. Memory: MB kept for the "
    "backward / MB at the peak. *: other programs were running. Shares: test images that are "
    "classified right."
)
NOTHING, MISSING = "-", "missing"
MAX_COLUMNS = 8

Name = TypeVar("Name", str, tuple[str, str, str])


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


def all_tables(rows: Sequence[Result], targets: Sequence[Target]) -> list[Table]:
    """A table for each setting and one for its memory; then what was measured beside times, who is
    missing and why, and the targets."""
    tables = []
    for setting in _unique(row.setting for row in rows):
        chosen = [row for row in rows if row.setting == setting]
        tables.append(_pivot(setting, chosen, _figure))
        if any(_memory(row) for row in chosen):
            tables.append(_pivot(f"{setting}, memory", chosen, _memory))
    for title, cell in (("agreement", _agreement), ("integers", _integers)):
        chosen = [row for row in rows if cell(row)]
        if chosen:
            tables.append(_pivot(title, chosen, cell))
    missing = [row for row in rows if isinstance(row, Missing)]
    if missing:
        tables.append(_missing_table(missing))
    if targets:
        tables.append(_targets_table(targets))
    return tables


def _pivot(title: str, rows: Sequence[Entry], cell: Callable[[Entry], str]) -> Table:
    """Contenders in lines and subjects in columns, or the other way round where these are many."""
    subjects = _unique(row.subject for row in rows)
    contenders = _unique(row.contender for row in rows)
    cells = {(row.contender, row.subject): cell(row) for row in rows}
    if len(subjects) <= MAX_COLUMNS:
        header = subjects
        lines = [[name, *(cells.get((name, s), "") for s in subjects)] for name in contenders]
    else:
        header = contenders
        lines = [[s, *(cells.get((name, s), "") for name in contenders)] for s in subjects]
    return Table(title, ["", *header], lines, figures=range(1, len(header) + 1))


def _figure(row: Entry) -> str:
    if isinstance(row, Accuracy):
        return f"{row.accuracy:.2%}" + (" (warned)" if row.warned else "")
    if isinstance(row, Instructions):
        return f"{row.instructions:,.0f}"
    return _time(row) if isinstance(row, Row) else NOTHING


def _time(row: Row) -> str:
    bounds = (0.01, 5), (1, 3), (10, 2)
    digits = next((digits for bound, digits in bounds if row.median_ms < bound), 1)
    ratio = "" if row.ratio is None else f" ({row.ratio:.2f})"
    if row.share_of_peak is not None:
        ratio = f" ({row.share_of_peak:.0%})"
    variant = "" if row.variant is None else f" {row.variant}"
    doubt = " *" if row.disturbed else ""
    return f"{row.median_ms:.{digits}f}{ratio}{variant}{doubt}"


def _agreement(row: Entry) -> str:
    if not isinstance(row, Row) or row.sqnr_db is None:
        return ""
    return f"{row.sqnr_db:.0f}"


def _integers(row: Entry) -> str:
    if not isinstance(row, Row) or row.integer_macs is None:
        return ""
    return f"{row.integer_macs:.1%}"


def _memory(row: Entry) -> str:
    if not isinstance(row, Row) or row.kept_bytes is None or row.peak_bytes is None:
        return ""
    return f"{row.kept_bytes / 1e6:.1f} / {row.peak_bytes / 1e6:.1f}"


def _missing_table(missing: Sequence[Missing]) -> Table:
    """One line for each contender and subject that it failed at for the same reason."""
    lines = _unique((row.contender, row.subject, row.reason) for row in missing)
    return Table(MISSING, ["contender", "where", "why"], lines, range(0))


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


def _unique(names: Iterable[Name]) -> list[Name]:
    return list(dict.fromkeys(names))
