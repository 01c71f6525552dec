"""What the processes of one run tell each other."""

from __future__ import annotations

from typing import Any, TypeVar

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only

T = TypeVar("T")


def gather(own: T) -> list[T]:
    """Every rank's value in the order of the ranks.  All ranks must call it at the same place; one alone gets its own.

    Args:
        own: anything that pickles, small.
    """
    if not dist.is_available() or not dist.is_initialized():
        return [own]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    return gathered


def first_rank() -> bool:
    """Whether this process is the one that writes the run's files."""
    return rank_zero_only.rank == 0
