"""Ends a run of which too much is skipped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from vilamp.errors import DataError
from vilamp.samples import Batch
from vilamp.training.ranks import gather

MEET_EVERY = 50
"""Steps of a pass after which the ranks add up what they lost."""
FIRST_STRETCH = 1000
"""Before a pass is over it is judged as if at least so many samples were seen.

Where samples are few, chance alone takes the share beyond a limit that the whole set keeps.
"""


@dataclass
class Pass:
    """What one epoch of training, or one validation, has seen.

    Attributes:
        split: ``train`` or ``val``.
        samples: how many were to be read.
        lost: how many of them could not be used; one that lost a question of four counts a quarter.
        reasons: of the skips.
    """

    split: str
    samples: int = 0
    lost: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        self.samples += batch.samples
        self.lost += batch.lost
        self.reasons.update(skip.reason for skip in batch.skipped)

    def of_all_ranks(self) -> Pass:
        """The sum over the ranks, which must all call this."""
        total = Pass(self.split)
        for samples, lost, reasons in gather((self.samples, self.lost, self.reasons)):
            total.samples += samples
            total.lost += lost
            total.reasons.update(reasons)
        return total


def judge(seen: Pass, rate: float, quarantine: Path, *, complete: bool) -> None:
    """Raise where more is lost than the rate allows.

    A single lost sample ends no run, unless the rate is 0.

    Args:
        seen: of all ranks.
        rate: ``data.max_skip_rate``.
        quarantine: the file that lists what was skipped.
        complete: the pass is over; else :data:`FIRST_STRETCH` holds.

    Raises:
        DataError: names the count, the reasons and the file.
    """
    allowed = rate * (seen.samples if complete else max(seen.samples, FIRST_STRETCH))
    if seen.lost <= (max(allowed, 1.0) if rate else 0.0):
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in seen.reasons.most_common())
    raise DataError(
        f"{seen.lost:g} of {seen.samples} samples of data.{seen.split} could not be used, "
        f"{seen.lost / seen.samples:.1%} where data.max_skip_rate={rate:g} allows {rate:.1%}; "
        f"skips by reason: {reasons}; {quarantine} lists them. "
        "Mend the data, or allow more (data.max_skip_rate=1 allows all)"
    )


class SkipLimit(Callback):
    """Ends the run when more samples are skipped than ``data.max_skip_rate`` allows.

    Shards are judged by their index when a run begins, every epoch and validation when it is over, and before that
    every :data:`MEET_EVERY` steps.  All ranks end together.

    Args:
        quarantine: as in :func:`judge`; it stands behind :class:`~vilamp.training.callbacks.SkipReport`, which writes
            that file, in the list of callbacks.
    """

    def __init__(self, quarantine: Path) -> None:
        self.quarantine = quarantine
        self.passes = {"train": Pass("train"), "val": Pass("val")}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Judge what is no sample in the shards themselves."""
        for split, index in trainer.datamodule.indices.items():
            reasons = Counter(skip.reason for skip in index.skips)
            lost = reasons.total()
            self._judge(trainer, Pass(split, len(index.samples) + lost, lost, reasons), complete=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self.passes["train"] = Pass("train")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self.passes["val"] = Pass("val")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count, and judge now and then."""
        self._count(trainer, "train", batch, batch_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count, and judge now and then."""
        self._count(trainer, "val", batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the validation."""
        self._judge(trainer, self.passes["val"].of_all_ranks(), complete=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the epoch."""
        self._judge(trainer, self.passes["train"].of_all_ranks(), complete=True)

    def _count(self, trainer: Trainer, split: str, batch: Batch, number: int) -> None:
        self.passes[split].add(batch)
        if (number + 1) % MEET_EVERY == 0:  # all ranks have equally many steps
            self._judge(trainer, self.passes[split].of_all_ranks(), complete=False)

    def _judge(self, trainer: Trainer, seen: Pass, *, complete: bool) -> None:
        judge(seen, trainer.datamodule.max_skip_rate, self.quarantine, complete=complete)
