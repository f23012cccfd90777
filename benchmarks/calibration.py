"""Calibration and post-training quantization: accuracy by method, by data, and speed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import qatx
import torch
from _calibration_accuracy import by_method, by_samples, on_noise, rounding
from _calibration_networks import train_demo, train_outliers
from _calibration_speed import calibrating, observing, searching
from _calibration_targets import check_targets
from _measure import Budget
from _results import Accuracy, Row, write
from _tables import LEGEND, all_tables
from rich.console import Console

PEERS = ("onnxruntime",)
THREADS = 1  # what is timed is compared with one thread too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/calibration.json"))
    parser.add_argument("--quick", action="store_true", help="little training, few samples")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    console = Console(width=None if sys.stdout.isatty() else 180)
    rows = list(measure(options.quick))
    targets = check_targets(rows)
    write(options.out, rows, targets, PEERS)
    for table in all_tables(rows, targets):
        console.print(table.rich())
    console.print(f"{LEGEND}\nAll figures: {options.out}")


def measure(quick: bool) -> Iterator[Row | Accuracy]:
    """Everything."""
    say("training the demo network")
    demo = train_demo(quick)
    say("training the outlier network")
    outliers = train_outliers(quick)
    counts = (100,) if quick else (10, 100, 1000, 5000)
    for subject in (demo, outliers):
        say(f"accuracy: {subject.name}")
        yield from by_method(subject)
        yield from on_noise(subject)
        yield from by_samples(subject, counts)
    say("rounding")
    for bits, axis in ((4, 0),) if quick else ((4, 0), (4, None), (2, 0)):
        yield from rounding(demo, qatx.QuantSpec(bits=bits, axis=axis))
    say("speed")
    budget = Budget(seconds=0 if quick else 2, rounds=2 if quick else 5, settle=True)
    yield from observing(budget)
    yield from calibrating(demo, 128 if quick else 1000, budget)
    yield from searching(2 if quick else 100, Budget(seconds=0, rounds=1, settle=True))


def say(what: str) -> None:
    print(f"calibration: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
