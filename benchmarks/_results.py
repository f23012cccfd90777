"""The results of a benchmark: rows of a JSON file, and the machine that they come from."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import qatx
import torch
from _measure import DISTURBED, Budget, Times, interleaved
from qatx._C import isa


@dataclass(frozen=True)
class Entry:
    """Of a contender in a case.

    A case is named "SETTING: SUBJECT"; cases of one setting make one table.
    """

    case: str
    contender: str

    @property
    def setting(self) -> str:
        return self.case.partition(": ")[0]

    @property
    def subject(self) -> str:
        return self.case.partition(": ")[2]


@dataclass(frozen=True)
class Missing(Entry):
    """A contender that could not be measured."""

    reason: str


@dataclass(frozen=True)
class Row(Entry):
    """What one contender needed in one case."""

    median_ms: float
    min_ms: float
    other_load: float  # cores that other programs kept busy meanwhile
    kept_bytes: int | None = None  # from forward to backward
    peak_bytes: int | None = None  # at a time, during the call
    ratio_to: str | None = None  # another contender in this case
    ratio: float | None = None  # of the medians; above 1 is slower
    share_of_peak: float | None = None  # of what the instruction allows
    integer_macs: float | None = None  # share of multiply-accumulates that run in integers
    sqnr_db: float | None = None  # signal to noise of the output, against float32
    variant: str | None = None  # the fastest of several that the contender has

    @property
    def disturbed(self) -> bool:
        return self.other_load > DISTURBED


@dataclass(frozen=True)
class Accuracy(Entry):
    """What a classifier that one contender made got right in one case."""

    accuracy: float  # the share of test images, 0 to 1
    warned: bool | None = None  # whether the contender warned of the data


@dataclass(frozen=True)
class Instructions(Entry):
    """How many one call of a contender takes."""

    instructions: float


Result = Row | Accuracy | Instructions | Missing


@dataclass(frozen=True)
class Target:
    """A figure in one case, and what it should be: at least or at most."""

    target: str
    case: str
    figure: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def margin(self) -> float:
        """1 on the border, less where the target is missed."""
        if self.at_least is not None:
            return self.figure / self.at_least
        assert self.at_most is not None
        return math.inf if self.figure <= 0 else self.at_most / self.figure

    @property
    def reached(self) -> bool:
        return self.margin >= 1


def compare(
    case: str, functions: Mapping[str, Callable[[], object]], budget: Budget, *, ratio_to: str
) -> list[Row]:
    """Times all contenders of a case, in turns."""
    return as_rows(case, interleaved(functions, budget), ratio_to=ratio_to)


def as_rows(case: str, times: Times, *, ratio_to: str | None = None) -> list[Row]:
    """The rows of a case."""
    medians = {name: statistics.median(seconds) for name, seconds in times.seconds.items()}
    return [
        Row(
            case,
            name,
            median_ms=medians[name] * 1e3,
            min_ms=min(seconds) * 1e3,
            other_load=times.other_load,
            ratio_to=ratio_to,
            ratio=None if ratio_to is None else medians[name] / medians[ratio_to],
        )
        for name, seconds in times.seconds.items()
    ]


def with_memory(row: Row, *, kept: int, peak: int) -> Row:
    return replace(row, kept_bytes=kept, peak_bytes=peak)


def machine(peers: Iterable[str]) -> dict[str, Any]:
    """Where and with what this process measures; `peers` are packages."""
    cpu = torch.cpu.get_capabilities()
    return {
        "cpu": cpu["cpu_name"],
        "cores": len(os.sched_getaffinity(0)),
        "cpu_flags": sorted(
            flag for flag in cpu if flag.startswith(("avx", "amx", "fma", "f16c")) and cpu[flag]
        ),
        "isa": isa(),  # of the kernels that qatx chose
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "qatx": qatx.__version__,
        "peers": {name: importlib.metadata.version(name) for name in peers},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write(
    path: Path,
    rows: Sequence[Result],
    targets: Sequence[Target],
    peers: Iterable[str],
) -> None:
    """Writes the JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine(peers),
        "rows": [_fields(row) for row in rows],
        "targets": [_fields(target) | {"reached": target.reached} for target in targets],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def _fields(entry: Result | Target) -> dict[str, Any]:
    """What it has, without what it lacks."""
    return {key: value for key, value in asdict(entry).items() if value is not None}


def read(path: Path) -> tuple[dict[str, Any], list[Result], list[Target]]:
    """The machine, the rows and the targets of a file."""
    content = json.loads(path.read_text())
    for target in content["targets"]:
        del target["reached"]  # follows from the rest
    return (
        content["machine"],
        [_entry(row) for row in content["rows"]],
        [Target(**target) for target in content["targets"]],
    )


def _entry(fields: dict[str, Any]) -> Result:
    if "reason" in fields:
        return Missing(**fields)
    if "instructions" in fields:
        return Instructions(**fields)
    return Accuracy(**fields) if "accuracy" in fields else Row(**fields)
