"""Workers stay when they are sent SIGTERM, and still end with the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
