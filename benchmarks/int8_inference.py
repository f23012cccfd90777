"""Inference in INT8: qatx, float32, and everyone else's integers."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from multiprocessing import get_context
from pathlib import Path

from _int8_inference_cases import (
    CONTENDERS,
    Plan,
    case_name,
    kernels,
    measure_model,
    overhead,
    say,
)
from _int8_inference_targets import check_targets
from _measure import Budget
from _results import Missing, Row, write
from _tables import LEGEND, all_tables
from models import ARCHITECTURES
from rich.console import Console

PEERS = ("nncf", "onnx", "onnxruntime", "onnxscript", "openvino")
FULL = Plan(
    batches=(1, 16),
    threads=(1, 2),
    budget=Budget(seconds=2.5, rounds=5, attempts=2, settle=True),
    quick=False,
)
QUICK = Plan(
    batches=(1,), threads=(1, 2), budget=Budget(seconds=0, rounds=2, settle=True), quick=True
)
QUICK_MODELS = ("resnet18", "text_cnn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/int8-inference.json"))
    parser.add_argument("--quick", action="store_true", help="few small models, seldom")
    parser.add_argument("--models", help=f"some of {','.join(ARCHITECTURES)}")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 180)
    plan = QUICK if options.quick else FULL
    models = QUICK_MODELS if options.quick else tuple(ARCHITECTURES)
    if options.models is not None:
        models = tuple(options.models.split(","))
        if unknown := sorted(set(models) - set(ARCHITECTURES)):
            parser.error(f"no such model: {', '.join(unknown)}")

    # Whatever a contender does about placing its threads, it has these cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: max(plan.threads)])
    rows = list(measure(models, plan))
    targets = check_targets(rows)
    write(options.out, rows, targets, PEERS)
    for table in all_tables(rows, targets):
        console.print(table.rich())
    console.print(f"{LEGEND}\nAll figures: {options.out}")


def measure(models: Sequence[str], plan: Plan) -> Iterator[Row | Missing]:
    """Every case, sorted by setting."""
    say("kernels")
    gemm = list(kernels(3 if plan.quick else 30))
    say("overhead")
    trivial = list(overhead(plan))
    rows = [row for key in models for row in in_own_process(key, plan)]
    settings = list(dict.fromkeys(row.setting for row in rows))
    yield from sorted(rows, key=lambda row: settings.index(row.setting))
    yield from trivial
    yield from gemm


def in_own_process(key: str, plan: Plan) -> list[Row | Missing]:
    """A model's rows. What a peer leaves behind, be it only a crash, ends with the process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measure_model, key, plan).result()
        except BrokenProcessPool:
            model = ARCHITECTURES[key].name
            return [
                Missing(case_name(batch, threads, model), name, "the process of this model died")
                for threads, batch in product(plan.threads, plan.batches)
                for name in CONTENDERS
            ]


if __name__ == "__main__":
    main()
