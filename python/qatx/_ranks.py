"""How the processes of `torch.distributed` tell each other what they have seen in calibration."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributed as dist


def all_gather_over_ranks() -> Callable[[Tensor], list[Tensor]] | None:
    """What gathers a tensor from all ranks; None where there are no others."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return None
    return _all_gather


def _all_gather(own: Tensor) -> list[Tensor]:
    own = own.to("cuda" if dist.get_backend() == "nccl" else "cpu")
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    return gathered
