"""What qatx sets out to reach in calibration.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from _calibration_accuracy import (
    BY_METHOD,
    FLOAT,
    KL,
    MIN_MAX,
    NOISE,
    NOISE_DATA,
    PLAIN,
    REAL_DATA,
    ROUNDING,
    points,
)
from _calibration_speed import CALIBRATE, CALIBRATING, OBSERVE, OBSERVING, SEARCH, SEARCHING
from _results import Accuracy, Result, Row, Target


def check_targets(rows: Sequence[Result]) -> list[Target]:
    """The figure of every target, in every case that it speaks of and that was measured."""
    cases: dict[str, dict[str, Row | Accuracy]] = {}
    for row in rows:
        if isinstance(row, Row | Accuracy):
            cases.setdefault(row.case, {})[row.contender] = row
    return [target for case, found in cases.items() for target in _targets(case, found)]


def _targets(case: str, rows: dict[str, Row | Accuracy]) -> Iterator[Target]:
    setting, _, subject = case.partition(": ")
    if setting in (OBSERVING, SEARCHING, CALIBRATING):
        yield from _speed(case, setting, rows)
        return
    found = {name: row for name, row in rows.items() if isinstance(row, Accuracy)}
    if setting == BY_METHOD:
        better = points(found, KL, MIN_MAX)
        if points(found, FLOAT, MIN_MAX) >= 4:
            yield Target(
                "KL at least 2 points better than min-max where min-max loses 4 or more",
                case,
                better,
                at_least=2,
            )
        yield Target("KL at most 0.2 points worse than min-max", case, -better, at_most=0.2)
    elif setting == ROUNDING:
        name = max(
            (n for n in found if "gptq" in n or "adaround" in n), key=lambda n: found[n].accuracy
        )
        where = f"{case} ({name})"
        yield Target(
            "AdaRound or GPTQ at least 3 points better than min-max rounding",
            where,
            points(found, name, PLAIN),
            at_least=3,
        )
        yield Target(
            "AdaRound or GPTQ at most 1.5 points worse than float",
            where,
            points(found, FLOAT, name),
            at_most=1.5,
        )
    elif setting.startswith(NOISE):
        warned = all(row.warned == (subject == NOISE_DATA) for row in found.values())
        if subject in (NOISE_DATA, REAL_DATA):
            yield Target("noise is warned of, images are not", case, float(warned), at_least=1)


def _speed(case: str, setting: str, rows: dict[str, Row | Accuracy]) -> Iterator[Target]:
    name = {OBSERVING: OBSERVE, SEARCHING: SEARCH, CALIBRATING: CALIBRATE}[setting]
    row = rows[name]
    assert isinstance(row, Row)
    assert row.ratio is not None
    if setting == OBSERVING:
        yield Target("observing at most 1.5x as long as amax", case, row.ratio, at_most=1.5)
    elif setting == SEARCHING:
        yield Target(
            "KL search at least 100x as fast as ONNX Runtime's", case, 1 / row.ratio, at_least=100
        )
    else:
        yield Target("calibrating at most 3x as long as inference", case, row.ratio, at_most=3)
