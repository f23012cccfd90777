"""What `qatx.convert` tells about a model."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """What became of one operator.

    Attributes:
        name: Path of the module that it is in.
        kind: The operator, such as "aten::conv2d".
        integer: Whether it runs in integers.
        reason: Why it stayed float; "" where it did not.
        weight_bytes: Size of its integer weights, in the file and in memory: 8, 4 or 2 bits each.
        macs: Multiply-accumulate operations for the example inputs.
    """

    name: str
    kind: str
    integer: bool
    reason: str
    weight_bytes: int
    macs: int


@dataclass(frozen=True)
class Report:
    """What became integer and what did not; `print` shows it as a table.

    Attributes:
        rows: One for each operator, in the order in which they run.
    """

    rows: tuple[ReportRow, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of the model for the example inputs."""
        return sum(row.macs for row in self.rows)

    @property
    def integer_share_of_macs(self) -> float:
        """Between 0 and 1; 0 where the model has none."""
        integer = sum(row.macs for row in self.rows if row.integer)
        return integer / self.macs if self.macs else 0.0

    @property
    def weight_bytes(self) -> int:
        """Size of all integer weights."""
        return sum(row.weight_bytes for row in self.rows)

    def table(self, *, width: int = 120) -> str:
        """The report as text.

        Args:
            width: Columns of characters; long reasons are wrapped.
        """
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("module", overflow="fold")
        table.add_column("operator", overflow="fold")
        table.add_column("runs in")
        table.add_column("weights [B]", justify="right")
        table.add_column("MACs", justify="right")
        table.add_column("why float", overflow="fold")
        for row in self.rows:
            table.add_row(
                row.name,
                row.kind,
                "integer" if row.integer else "float",
                f"{row.weight_bytes:,}" if row.weight_bytes else "",
                f"{row.macs:,}" if row.macs else "",
                row.reason,
            )
        integers = sum(row.integer for row in self.rows)
        console = Console(
            width=width, file=io.StringIO(), color_system=None, markup=False, highlight=False
        )
        with console.capture() as captured:
            console.print(table)
            console.print(
                f"In integers: {integers} of {len(self.rows)} operators, "
                f"{self.integer_share_of_macs:.1%} of {self.macs:,} multiply-accumulates. "
                f"Integer weights: {self.weight_bytes:,} bytes."
            )
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def __str__(self) -> str:
        return self.table()
