"""A DataLoader whose workers stay until the run ends them."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from typing import Any

from torch.utils.data import DataLoader


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
