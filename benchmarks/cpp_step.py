"""A step of quantization-aware training: the loop in C++ against the loop in Python."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from _measure import Budget
from _results import Row, Target, compare, write
from _tables import all_tables
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
COMMANDS: dict[str, Sequence[str | Path]] = {
    "C++": [ROOT / "build/cmake/bin/train_step"],
    "Python": [sys.executable, ROOT / "benchmarks/_cpp_step_python.py"],
}
BATCHES = (128, 8)
THREADS = 1


class Worker:
    """A process that takes a step when it is told to."""

    def __init__(self, command: Sequence[str | Path], batch: int) -> None:
        self._process = subprocess.Popen(
            [*command, str(THREADS), str(batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def ask(self, line: str) -> str:
        """Hands a line over and waits for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args} has ended")
        return answer.strip()


@contextmanager
def workers(batch: int) -> Iterator[dict[str, Worker]]:
    made = {name: Worker(command, batch) for name, command in COMMANDS.items()}
    try:
        yield made
    finally:
        for worker in made.values():
            worker.close()


def measure(batch: int, budget: Budget) -> list[Row]:
    """Both loops, in turns, and the most memory that each had beyond its start."""
    with workers(batch) as made:
        steps = {name: lambda worker=worker: worker.ask("step") for name, worker in made.items()}
        rows = compare(
            f"training, {THREADS} thread: batch {batch}", steps, budget, ratio_to="Python"
        )
        return [replace(row, peak_bytes=int(made[row.contender].ask("memory"))) for row in rows]


def targets_of(rows: Sequence[Row]) -> list[Target]:
    """C++ is not above Python."""
    cpp, python = (next(row for row in rows if row.contender == name) for name in COMMANDS)
    assert cpp.ratio is not None
    assert cpp.peak_bytes is not None
    assert python.peak_bytes is not None
    return [
        Target("C++ step time, x Python", cpp.case, cpp.ratio, at_most=1.0),
        Target("C++ memory, x Python", cpp.case, cpp.peak_bytes / python.peak_bytes, at_most=1.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/cpp-step.json"))
    parser.add_argument("--quick", action="store_true", help="a few steps")
    options = parser.parse_args()
    budget = Budget(seconds=0, rounds=2) if options.quick else Budget(seconds=5, rounds=20)
    rows: list[Row] = []
    targets: list[Target] = []
    for batch in BATCHES:
        measured = measure(batch, budget)
        rows += measured
        targets += targets_of(measured)
    write(options.out, rows, targets, ())
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in all_tables(rows, targets):
        console.print(table.rich())
    console.print(f"All figures: {options.out}")


if __name__ == "__main__":
    main()
