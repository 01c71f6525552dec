"""The same work on many shards, by several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from multiprocessing import resource_tracker
from typing import TypeVar

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from vilamp.data.interrupts import CAN_DEFER, interrupts_deferred
from vilamp.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_any_order(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, Result]]:
    """(number of the job, result) of each job as it is finished; with fewer than two workers in this process.

    Raises:
        DataError: one of the processes died.
    """
    workers = min(workers, len(jobs))
    if workers < 2:
        for number, job in enumerate(jobs):
            yield number, work(job)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_user)
    if CAN_DEFER:
        resource_tracker.ensure_running()  # else the first process does, which lets Ctrl-C through again
    try:
        with interrupts_deferred():
            numbers = {pool.submit(work, job): number for number, job in enumerate(jobs)}
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    except BrokenExecutor as error:
        raise DataError(
            "a process was killed, for its memory or (elsewhere than on Linux) because a video crashes FFmpeg; "
            "--workers 0 takes the least memory, and shards that were written stay"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def with_progress(
    what: str, work: Callable[[Job], Result], jobs: Sequence[Job], sizes: Sequence[int], workers: int, shown: bool
) -> Iterator[tuple[int, Result]]:
    """As :func:`in_any_order`, with a progress bar of bytes, of which a job has as many as ``sizes`` says."""
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("", total=sum(sizes))
        for number, result in in_any_order(work, jobs, workers):
            bar.advance(task, sizes[number])
            yield number, result


def _end_with_user() -> None:
    """End this process on Ctrl-C without a traceback, and when its parent is killed, which it would not by itself."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # what a script has put into the background does not heed it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if CAN_DEFER:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
