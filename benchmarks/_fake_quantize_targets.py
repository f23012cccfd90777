"""What qatx sets out to reach in fake_quantize.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from _fake_quantize_cases import (
    ADD,
    ADD_FRESH,
    ANY_ORDER,
    COPY,
    FIXED_ORDER,
    SUMS,
    kernel_name,
)
from _fake_quantize_contenders import ATEN_LEARNABLE, BREVITAS, LIMIT, QATX
from _fake_quantize_subject import Subject
from _results import Row, Target

IN_CACHE = Subject((32, 32, 28, 28))
PER_TENSOR = kernel_name(IN_CACHE)

TRAINING = "forward + backward, "
FORWARD = "fake_quantize.out, "
BACKWARD = "fake_quantize_backward, "
GRANULARITY = "granularity, "
DATA_TYPES = "data types, "


@dataclass(frozen=True)
class Rule:
    """The time of `contender` divided by the time of `other`, in all cases of a measure."""

    target: str
    measure: str  # the beginning of the names of its cases
    contender: str  # the beginning of a name
    other: str
    at_least: float | None = None
    at_most: float | None = None
    subject: str = ""  # the end of the names of its cases


RULES = (
    Rule(
        "training step in cache at most 1.3x as long as x * 1.0",
        TRAINING,
        QATX,
        LIMIT,
        at_most=1.3,
        subject=str(IN_CACHE),
    ),
    Rule(
        "training step in cache at least 10x as fast as ATen learnable",
        TRAINING,
        ATEN_LEARNABLE,
        QATX,
        at_least=10,
        subject=str(IN_CACHE),
    ),
    Rule(
        "training step in cache at least 15x as fast as Brevitas",
        TRAINING,
        BREVITAS,
        QATX,
        at_least=15,
        subject=str(IN_CACHE),
    ),
    Rule(
        "fake_quantize.out at least 0.9x as fast as copy_", FORWARD, COPY, PER_TENSOR, at_least=0.9
    ),
    Rule(
        "backward at least 0.9x as fast as torch.add(out=)", BACKWARD, ADD, PER_TENSOR, at_least=0.9
    ),
    Rule(
        "backward at least 0.9x as fast as torch.add, which allocates too",
        BACKWARD,
        ADD_FRESH,
        PER_TENSOR,
        at_least=0.9,
    ),
    Rule(
        "forward kernel by channel or group at most 1.15x as long as per tensor",
        FORWARD,
        QATX,
        PER_TENSOR,
        at_most=1.15,
    ),
    Rule(
        "backward kernel by channel or group at most 1.15x as long as per tensor",
        BACKWARD,
        QATX,
        PER_TENSOR,
        at_most=1.15,
    ),
    Rule(
        "training step by channel or group at most 1.15x as long as per tensor",
        GRANULARITY,
        QATX,
        PER_TENSOR,
        at_most=1.15,
    ),
    Rule(
        "sums in a fixed order at most 1.05x as long as in any order",
        SUMS,
        FIXED_ORDER,
        ANY_ORDER,
        at_most=1.05,
    ),
    Rule(
        "training step in bfloat16 at most as long as in float32",
        DATA_TYPES,
        "bfloat16",
        "float32",
        at_most=1,
    ),
)


def check_targets(rows: Sequence[Row]) -> list[Target]:
    """The figure of every target, in every case that it speaks of."""
    cases: dict[str, dict[str, float]] = {}
    for row in rows:
        cases.setdefault(row.case, {})[row.contender] = row.median_ms
    disturbed = {row.case for row in rows if row.disturbed}
    return [
        Target(
            rule.target,
            where(case, name) + (" *" if case in disturbed else ""),
            time / times[rule.other],
            rule.at_least,
            rule.at_most,
        )
        for rule in RULES
        for case, times in cases.items()
        if case.startswith(rule.measure) and case.endswith(rule.subject)
        for name, time in times.items()
        if name.startswith(rule.contender) and name != rule.other
    ]


def where(case: str, contender: str) -> str:
    """The case, and the contender where qatx has several."""
    return f"{case} ({contender})" if contender.startswith(f"{QATX}, ") else case
