"""The bytes that functions hold, and the allocator that they take them from."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch._C._profiler import _ExtraFields_Allocation, _ProfilerEvent

# Keeps torch's profiler from reporting every start and stop on the screen.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def settle_allocator() -> None:
    """Brings glibc's allocator to where a training process soon is.

    What it keeps for the next allocation instead of giving it back to the system depends on the
    largest block that was freed so far, up to 32 MiB. Without this, the first case would be the
    slowest.
    """
    torch.empty(31 << 20, dtype=torch.uint8).fill_(0)


def reuse_memory() -> None:
    """From now on, the allocator keeps all that is freed, as jemalloc and tcmalloc do for a while:
    what is allocated costs no page faults, once it has been allocated before."""
    mmap_max, trim_threshold = -4, -1  # glibc's M_MMAP_MAX, M_TRIM_THRESHOLD
    for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1)):
        if not ctypes.CDLL(None).mallopt(option, value):
            raise OSError(f"mallopt({option}, {value}) failed")


def kept_bytes(forward: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """What is kept from forward to backward: the input too where it is, but not the result."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        y = forward(x.clone())
    return sum(_allocations(profile)) - y.untyped_storage().nbytes()


def peak_bytes(step: Callable[[], object]) -> int:
    """The most that is allocated at a time while `step` runs, beside what was before."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        step()
    held = peak = 0
    for change in _allocations(profile):
        held += change
        peak = max(peak, held)
    return peak


def _allocations(profile: torch.autograd.profiler.profile) -> list[int]:
    """Bytes of every allocation, and minus the bytes of every release, in the order of time."""
    assert profile.kineto_results is not None
    changes: list[tuple[int, int]] = []
    events: list[_ProfilerEvent] = profile.kineto_results.experimental_event_tree()
    while events:
        event = events.pop()
        events += event.children
        if isinstance(event.extra_fields, _ExtraFields_Allocation):
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    return [size for _, size in sorted(changes, key=lambda change: change[0])]
