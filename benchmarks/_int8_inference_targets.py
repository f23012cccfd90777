"""What qatx sets out to reach in int8_inference.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from _int8_inference_cases import (
    EAGER,
    KERNELS,
    LOAD,
    LOADING,
    OVERHEAD,
    PEERS_INT8,
    QATX,
    READ,
    WINDOWS,
)
from _results import Missing, Row, Target

RESNET, MOBILENET = "ResNet-50", "MobileNetV2"


def check_targets(rows: Sequence[Row | Missing]) -> list[Target]:
    """The figure of every target, in every case that it speaks of and that was measured."""
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        if isinstance(row, Row):
            cases.setdefault(row.case, {})[row.contender] = row
    return [
        target
        for case, contenders in cases.items()
        for target in _targets(
            case + (" *" if any(row.disturbed for row in contenders.values()) else ""), contenders
        )
    ]


def _targets(case: str, contenders: dict[str, Row]) -> Iterator[Target]:
    times = {name: row.median_ms for name, row in contenders.items()}
    setting, _, subject = case.removesuffix(" *").partition(": ")
    if setting.startswith("batch ") and QATX in times:
        yield from _inference_targets(case, setting, subject, times)
    elif setting == KERNELS:
        for isa, row in contenders.items():
            if row.share_of_peak is not None and subject == WINDOWS:
                yield Target(
                    f"3x3 layers from 64 channels at least 80 % of the peak of {isa}",
                    case,
                    row.share_of_peak,
                    at_least=0.8,
                )
    elif setting.startswith(OVERHEAD) and QATX in times:
        yield Target("an operator at most 1 us", case, times[QATX] * 1e3, at_most=1)
    elif setting == LOADING:
        yield Target(
            "loading at most 100 ms more than reading the file",
            case,
            times[LOAD] - times[READ],
            at_most=100,
        )


def _inference_targets(
    case: str, setting: str, subject: str, times: dict[str, float]
) -> Iterator[Target]:
    peers = {name: times[name] for name in PEERS_INT8 if name in times}
    best = min(peers, key=peers.__getitem__, default=None)
    if subject == RESNET and setting == "batch 1, 2 threads":
        yield Target(
            "ResNet-50, batch 1, 2 threads, at least 5x as fast as torch FP32 channels_last",
            case,
            times[EAGER] / times[QATX],
            at_least=5,
        )
    if best is None:
        return
    if subject == RESNET:
        if setting != "batch 1, 2 threads":
            return
        target, least = f"{setting}, {RESNET}", 1.2
    elif subject == MOBILENET:
        if not setting.startswith("batch 1,"):
            return
        target, least = f"batch 1, {MOBILENET}", 1.2
    else:
        target, least = "every other model", 1.0
    yield Target(
        f"{target}, at least {least}x as fast as the best INT8 of the peers",
        f"{case} ({best})",
        peers[best] / times[QATX],
        at_least=least,
    )
