"""What the processes of one run tell each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only

from vilamp.errors import LostRankError

T = TypeVar("T")

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")
"""What gloo says of a process that is gone.  NCCL waits, until the launcher ends all processes of the run."""


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


@contextmanager
def told_losses() -> Iterator[None]:
    """Within this, another process that is gone ends in one message.

    Raises:
        LostRankError: in place of what the library that connects them says.
    """
    try:
        yield
    except RuntimeError as error:
        if not dist.is_available() or not dist.is_initialized() or not any(sign in str(error) for sign in LOST):
            raise
        raise LostRankError(
            f"another process of this run has ended, so rank {dist.get_rank()} cannot go on; what ended it is told by "
            "that process, or by the launcher if it was killed. The same command with resume=auto and the run's folder "
            "(hydra.run.dir) goes on from the last checkpoint"
        ) from error


def first_rank() -> bool:
    """Whether this process is the one that writes the run's files."""
    return rank_zero_only.rank == 0
