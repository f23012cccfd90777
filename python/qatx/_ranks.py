"""What the processes of `torch.distributed` tell each other while they calibrate."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch import distributed as dist

from qatx._C import Observer


def is_shared() -> bool:
    """Whether there are other ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def sum_over_ranks(value: int) -> int:
    """The sum of what all ranks have."""
    if not is_shared():
        return value
    total = torch.tensor(value, dtype=torch.int64, device=_device())
    dist.all_reduce(total)
    return int(total)


def merge_over_ranks(observers: list[Observer]) -> None:
    """Adds to each observer what those of the other ranks have seen, the same bits on all ranks."""
    if not is_shared() or not observers:
        return
    own = torch.cat([observer.state.flatten() for observer in observers]).to(_device())
    states: list[Tensor] = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(states, own)
    del states[dist.get_rank()]
    for state in states:
        sizes = [observer.state.numel() for observer in observers]
        for observer, part in zip(observers, state.cpu().split(sizes), strict=True):
            other = copy.deepcopy(observer)
            other.state = part.reshape(observer.state.shape)
            observer.merge(other)
