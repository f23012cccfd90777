"""Times functions against each other.

Contenders take turns, in an order that is shuffled for every round, so that drift of the machine
and what one leaves in the caches for the next meet all of them alike.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

SHORT = 0.01  # seconds; what is shorter runs a few times in a turn, on caches that it has warmed


WARM = 0.1  # seconds; where threads settle, what is shorter runs once before it is timed
DISTURBED = 0.1  # cores that other programs use; what is measured meanwhile means little


@dataclass(frozen=True)
class Budget:
    """How long contenders are measured together: until seconds and rounds are spent."""

    seconds: float
    rounds: int
    attempts: int = 1  # at most, as long as other programs disturb
    settle: bool = False  # wait before each turn until the threads of the last one rest


@dataclass(frozen=True)
class Times:
    """Seconds of every timed call of each function, and who disturbed them."""

    seconds: dict[str, list[float]]
    other_load: float  # cores that other programs kept busy, on average


def interleaved(functions: Mapping[str, Callable[[], object]], budget: Budget) -> Times:
    """Times all functions, in turns; of several attempts, the least disturbed one counts."""
    calls, untimed = {}, set()
    for name, function in functions.items():
        function()
        seconds = _seconds(function)
        calls[name] = max(1, min(20, int(SHORT / seconds)))
        if calls[name] > 1 or (budget.settle and seconds < WARM):
            untimed.add(name)
    attempts = [_attempt(functions, calls, untimed, budget)]
    while attempts[-1].other_load > DISTURBED and len(attempts) < budget.attempts:
        attempts.append(_attempt(functions, calls, untimed, budget))
    return min(attempts, key=lambda times: times.other_load)


def _attempt(
    functions: Mapping[str, Callable[[], object]],
    calls: Mapping[str, int],
    untimed: Collection[str],
    budget: Budget,
) -> Times:
    """Rounds in which every function is called; `calls` says how often it is timed in each, and
    `untimed` which of them are called once before."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    shuffle = random.Random(0).shuffle
    rounds = 0
    others, begin = OtherPrograms(), time.perf_counter()
    while rounds < budget.rounds or time.perf_counter() - begin < budget.seconds:
        shuffle(order)
        for name in order:
            if budget.settle:
                settle_threads()
            if name in untimed:
                functions[name]()
            times[name] += [_seconds(functions[name]) for _ in range(calls[name])]
        rounds += 1
    return Times(times, others.load())


def settle_threads() -> None:
    """Waits until no thread of this process runs.

    Pools of threads spin after a call, in case that another one follows (those of ONNX Runtime for
    tens of milliseconds), and would take the cores from whoever is next.
    """
    deadline = time.perf_counter() + 0.5
    while time.perf_counter() < deadline:
        before = time.process_time()
        time.sleep(0.002)
        if time.process_time() - before < 0.0005:
            return


class OtherPrograms:
    """What programs but this one and those that it ran have done since this was made."""

    def __init__(self) -> None:
        self._begin, self._before = time.perf_counter(), _others_seconds()

    def load(self) -> float:
        """Cores that they kept busy, on average."""
        elapsed = time.perf_counter() - self._begin
        return round(max(0.0, (_others_seconds() - self._before) / elapsed), 3)


def _seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _others_seconds() -> float:
    """Seconds of CPU time that all processes but this one and its children have used since the
    machine started."""
    total, *_ = Path("/proc/stat").read_text().splitlines()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, total.split()[1:9])
    ticks = user + nice + system + irq + softirq + steal
    children = os.times().children_user + os.times().children_system
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time() - children
