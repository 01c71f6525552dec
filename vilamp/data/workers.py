"""A DataLoader whose workers stay until the run ends them, and what is told of one that does not."""

from __future__ import annotations

import atexit
import multiprocessing
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from vilamp.errors import LostWorkerError

_LOST = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pid>[\d, ]+)\) "
    r"(?:is killed by signal: (?P<signal>[^.]*)\.|exited unexpectedly(?: with exit code (?P<code>\d+))?)"
)
"""What torch says of a worker that has ended."""


class StayingWorkersLoader(DataLoader[Any]):
    """Its workers do not heed SIGTERM.

    A scheduler may send it to every process of a job, and the run needs its workers until it has saved.  They end with
    their loader, after the item that they are at, and at the latest with the program.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.worker_init_fn is None:
            self.worker_init_fn = _stay
        atexit.unregister(_end_workers)
        atexit.register(_end_workers)


def _stay(worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end_workers() -> None:
    """Kill them before Python sends them SIGTERM and waits."""
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise for a worker that was killed
    for worker in workers:
        worker.kill()


@contextmanager
def told_lost_workers(settings: str, remains: Callable[[], str]) -> Iterator[None]:
    """Within this, a worker that was killed or crashed ends in one message.

    Args:
        settings: those that say how much memory workers take, with their values.
        remains: says what there is of the run, asked when a worker is lost.

    Raises:
        LostWorkerError: in place of torch's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        found = _LOST.search(f"{error.__cause__} {error}")  # the cause tells the signal, if it came while one waited
        if found is None:
            raise
        raise LostWorkerError(f"{_why(found, settings)}; {remains()}") from error


def _why(found: re.Match[str], settings: str) -> str:
    name, by = f"worker process {found['pid']} of the data", found["signal"] or ""
    if by.startswith("Bus error"):
        return (
            f"{name} ended with a bus error, most likely because /dev/shm is full: give it more room (docker run "
            f"--shm-size=8g) or lower what is in it ({settings}; data.frames_in_memory=0 puts frames into files)"
        )
    if found["code"] or (by and not by.startswith("Killed")):
        how = f"by a signal ({by})" if by else f"with exit code {found['code']}"
        return f"{name} ended {how}; data.num_workers=0 reads in the run's own process and shows where"
    how = "was killed (SIGKILL)" if by else "has ended"
    return f"{name} {how}, most likely because the memory of the machine ran out; lower {settings}"
