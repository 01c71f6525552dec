"""Workers stay when they are sent SIGTERM, and still end with the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from vilamp.data.workers import told_lost_workers
from vilamp.errors import LostWorkerError

PROGRAM = """
import os, signal, sys, time
from torch.utils.data import Dataset
from vilamp.data.workers import StayingWorkersLoader

class Workers(Dataset):
    # Each item is the process that read it; the last one is never read to its end.
    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index == 39:
            time.sleep(10_000)
        return os.getpid()

items = iter(StayingWorkersLoader(Workers(), batch_size=None, num_workers=2, persistent_workers=True))
workers = {next(items) for _ in range(10)}
for worker in workers:
    os.kill(worker, signal.SIGTERM)
assert {next(items) for _ in range(29)} == workers
print(*workers)
"""


def test_workers_stay_and_end_with_the_program() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    workers = done.stdout.split()
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


class Ending(Dataset[int]):
    """Ends the worker that reads it: by a signal, or with exit code 3."""

    def __init__(self, number: int | None) -> None:
        self.number = number

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        if self.number is None:
            os._exit(3)
        signal.signal(self.number, signal.SIG_DFL)  # or torch prints a line before it ends
        os.kill(os.getpid(), self.number)
        signal.pause()
        return 0


@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="POSIX has these")
@pytest.mark.parametrize(
    ("number", "told"),
    [
        ("SIGTERM", r"ended by a signal \(Terminated\); data\.num_workers=0 reads"),
        ("SIGBUS", r"bus error, most likely because /dev/shm is full.*lower what is in it \(data\.batch_size=1;"),
        (None, r"ended with exit code 3; data\.num_workers=0 reads"),
    ],
)
def test_a_lost_worker_is_told_by_what_ended_it(number: str | None, told: str) -> None:
    loader = DataLoader(Ending(None if number is None else signal.Signals[number]), num_workers=1)
    lost = told_lost_workers("data.batch_size=1", lambda: "the rest is here")
    with pytest.raises(LostWorkerError, match=rf"^worker process \d+ of the data .*{told}.*; the rest is here$"), lost:
        list(loader)


def test_another_error_of_a_worker_is_left_alone() -> None:
    with pytest.raises(RuntimeError, match="out of luck"), told_lost_workers("", lambda: ""):
        raise RuntimeError("out of luck")
