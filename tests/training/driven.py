"""One rank of a run that notes what it trains on, and that a signal ends at a given batch.

    python tests/training/driven.py NOTES BATCH settings...

Batch: it kills itself in the middle of its so many-th batch; 0: never.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

import vilamp.training.run as training
from vilamp.cli import app
from vilamp.samples import Batch
from vilamp.training.module import VideoQA


def noting(notes: Path, killed_in: int = 0) -> type[VideoQA]:
    """The module of a run that appends [epoch, keys of its samples] to ``notes`` for every batch."""

    class Noting(VideoQA):
        batches = 0

        def training_step(self, batch: Batch, batch_index: int) -> Tensor:
            keys = [question.key.rpartition("/")[0] for question in batch.questions] + [s.key for s in batch.skipped]
            with notes.open("a") as lines:
                lines.write(json.dumps([self.current_epoch, keys]) + "\n")
            self.batches += 1
            loss = super().training_step(batch, batch_index)
            if self.batches == killed_in:
                os.kill(os.getpid(), signal.SIGKILL)
            return loss

    return Noting


def noted(notes: Path) -> list[tuple[int, str]]:
    """(epoch, key) of every sample, in order."""
    return [(epoch, key) for epoch, keys in map(json.loads, notes.read_text().splitlines()) for key in keys]


def task(cfg: DictConfig) -> Any:
    """Train."""
    rank = os.environ.get("RANK", "0")
    training.VideoQA = noting(Path(f"{sys.argv[1]}{rank}"), int(sys.argv[2]))  # type: ignore[misc]
    return training.train(cfg)


if __name__ == "__main__":
    sys.exit(app.run(task, "train", sys.argv[3:]))
