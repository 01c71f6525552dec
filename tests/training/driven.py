"""One rank of a run that notes what it trains on, and that sends a signal to itself at a given moment.

    python tests/training/driven.py NOTES MOMENT settings...

MOMENT: LOOP/BATCH/SIGNAL[/RANK], in the middle of the so many-th batch of the loop ``train`` or ``val`` that this
process sees, on that rank alone or on all; or ``never``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

import vilamp.training.run as training
from vilamp.cli import app
from vilamp.samples import Batch
from vilamp.training.module import VideoQA

RANK = os.environ.get("RANK", "0")


def noting(notes: Path, moment: str = "never") -> type[VideoQA]:
    """The module of a run that appends [epoch, keys of its samples] to ``notes`` for every batch."""

    class Noting(VideoQA):
        batches: Counter[str]

        def training_step(self, batch: Batch, batch_index: int) -> Tensor:
            keys = [question.key.rpartition("/")[0] for question in batch.questions] + [s.key for s in batch.skipped]
            with notes.open("a") as lines:
                lines.write(json.dumps([self.current_epoch, keys]) + "\n")
            loss = super().training_step(batch, batch_index)
            self._pass("train")
            return loss

        def validation_step(self, batch: Batch, batch_index: int) -> None:
            super().validation_step(batch, batch_index)
            self._pass("val")

        def _pass(self, loop: str) -> None:
            self.batches = getattr(self, "batches", Counter())
            self.batches[loop] += 1
            at, _, number_and_rest = moment.partition("/")
            number, _, sent = number_and_rest.partition("/")
            name, _, rank = sent.partition("/")
            if at == loop and int(number) == self.batches[loop] and rank in ("", RANK):
                os.kill(os.getpid(), signal.Signals[name])

    return Noting


def noted(notes: Path) -> list[tuple[int, str]]:
    """(epoch, key) of every sample, in order."""
    return [(epoch, key) for epoch, keys in map(json.loads, notes.read_text().splitlines()) for key in keys]


def task(cfg: DictConfig) -> Any:
    """Train."""
    training.VideoQA = noting(Path(f"{sys.argv[1]}{RANK}"), sys.argv[2])  # type: ignore[misc]
    return training.train(cfg)


if __name__ == "__main__":
    sys.exit(app.run(task, "train", sys.argv[3:]))
