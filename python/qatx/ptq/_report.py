"""What the methods of `qatx.ptq` tell."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class PtqRow:
    """What a method did at one place.

    Attributes:
        name: The layer, by its path; several, where the method works on what is between them.
        before: `PtqReport.measure` before; None where nothing was done.
        after: The same afterwards.
        note: Why nothing was done; "" otherwise.
    """

    name: str
    before: float | None = None
    after: float | None = None
    note: str = ""


@dataclass(frozen=True)
class PtqReport:
    """What a method of `qatx.ptq` did; `print` shows it as a table.

    Attributes:
        method: The function.
        measure: What `before` and `after` are.
        rows: One for each place, in the order in which the model runs.
    """

    method: str
    measure: str
    rows: tuple[PtqRow, ...]

    def __getitem__(self, name: str) -> PtqRow:
        """The row with this name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"PtqReport: no row {name!r}")

    def table(self, *, width: int = 120) -> str:
        """The report as text.

        Args:
            width: Columns of characters; long notes are wrapped.
        """
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("layer", overflow="fold")
        table.add_column("before", justify="right")
        table.add_column("after", justify="right")
        table.add_column("note", overflow="fold")
        for row in self.rows:
            table.add_row(row.name, _number(row.before), _number(row.after), row.note)
        console = Console(
            width=width, file=io.StringIO(), color_system=None, markup=False, highlight=False
        )
        with console.capture() as captured:
            console.print(table)
            console.print(f"{self.method}. Before and after: {self.measure}.")
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def __str__(self) -> str:
        return self.table()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
