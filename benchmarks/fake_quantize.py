"""Fake quantization for training: qatx, its peers, and what memory alone allows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, product
from pathlib import Path

import torch
from _fake_quantize_cases import (
    data_types,
    described,
    granularities,
    kernels,
    peers,
    reproducible_sums,
    type_name,
)
from _fake_quantize_subject import Subject
from _fake_quantize_targets import IN_CACHE, check_targets
from _measure import Budget
from _memory import reuse_memory, settle_allocator
from _results import Row, write
from _tables import LEGEND, all_tables
from rich.console import Console

ACTIVATION = Subject((64, 64, 56, 56))
CONVOLUTION = Subject((512, 512, 3, 3), axis=0)
LINEAR_128 = Subject((4096, 4096), axis=1, group_size=128, bits=4)
LINEAR_32 = Subject((4096, 4096), axis=1, group_size=32, bits=4)
SUBJECTS = (IN_CACHE, ACTIVATION, CONVOLUTION, LINEAR_128, LINEAR_32)
DTYPES = (torch.float32, torch.bfloat16)
THREADS = (1, 2)
PEERS = ("brevitas", "torchao")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/fake-quantize.json"))
    parser.add_argument("--quick", action="store_true", help="small, seldom, no torch.compile")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)

    rows = list(measure(quick=options.quick, say=console.print))
    targets = check_targets(rows)
    write(options.out, rows, targets, PEERS)
    for table in all_tables(rows, targets):
        console.print(table.rich())
    console.print(f"{LEGEND}\nAll figures: {options.out}")


def measure(*, quick: bool, say: Callable[[str], None]) -> Iterator[Row]:
    """Every case; `say` is told what comes next."""
    budget = Budget(seconds=0, rounds=2) if quick else Budget(seconds=1.5, rounds=5, attempts=3)
    subjects = [shrunk(subject) for subject in SUBJECTS] if quick else SUBJECTS

    def settings(threads: Iterable[int]) -> Iterator[tuple[str, torch.dtype]]:
        for number, dtype in product(threads, DTYPES):
            torch.set_num_threads(number)
            yield f"{type_name(dtype)}, {described(number)}", dtype

    settle_allocator()
    for setting, dtype in settings(THREADS):
        for subject in subjects:
            say(f"{setting}: {subject}")
            yield from peers(subject, dtype, setting, budget, compiled=not quick)
    reuse_memory()
    for setting, dtype in settings(THREADS[-1:]):
        again = f"memory reused, {setting}"
        for subject in subjects:
            say(f"{again}: {subject}")
            yield from peers(subject, dtype, again, budget, compiled=not quick)
    for setting, dtype in settings(THREADS):
        for tensor in sharings(subjects):
            say(f"kernels, {setting}: {tensor[0].size}")
            yield from kernels(tensor, dtype, setting, budget)
            yield from granularities(tensor, dtype, setting, budget)
    for threads in THREADS:
        torch.set_num_threads(threads)
        for subject in subjects:
            say(f"data types, {described(threads)}: {subject}")
            yield from data_types(subject, DTYPES, described(threads), budget)
    say("reproducible sums")
    yield from reproducible_sums(2 if quick else 50)


def shrunk(subject: Subject) -> Subject:
    """An eighth of it, but for the one that is small already."""
    if subject == IN_CACHE:
        return subject
    first, *others = subject.shape
    return replace(subject, shape=(first // 8, *others))


def sharings(subjects: Sequence[Subject]) -> Iterator[list[Subject]]:
    """Each tensor with every way in which it is quantized; first, with one scale."""
    for _, same in groupby(subjects, key=lambda subject: (subject.shape, subject.bits)):
        ways = list(same)
        whole = replace(ways[0], axis=None, group_size=None)
        channels = replace(ways[0], axis=0, group_size=None)
        yield list(dict.fromkeys([whole, *([channels] if ways != [whole] else []), *ways]))


if __name__ == "__main__":
    main()
