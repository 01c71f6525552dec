"""Tells who decoded the videos, and how many frames are missing of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lightning import Callback, LightningModule, Trainer

from vilamp.samples import Batch
from vilamp.training.ranks import gather


class DecodeReport(Callback):
    """Counts videos as ``data/decoded_by/<decoder>``, and frames that stand in for undecodable ones as ``data/gaps``.

    A video counts every time that it is decoded.  What other ranks decoded is added when a validation or an epoch ends,
    where all ranks meet.
    """

    def __init__(self) -> None:
        self.own: Counter[str] = Counter()
        self.others: Counter[str] = Counter()

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        for video in batch.videos:
            self.own["data/gaps"] += video.gaps
            if video.decoder:
                self.own[f"data/decoded_by/{video.decoder}"] += 1

    def share(self) -> None:
        """Add up what all ranks decoded, which must all call this."""
        self.others = sum(gather(self.own), Counter())
        self.others.subtract(self.own)

    def measure(self) -> dict[str, float]:
        """The counts up to now, under the names that they are logged by."""
        names = sorted({"data/gaps", *self.own, *self.others})
        return {name: float(self.own[name] + self.others[name]) for name in names}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count, and log."""
        self.add(batch)
        pl_module.log_dict(self.measure())

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count."""
        self.add(batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All ranks are here."""
        self.share()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All ranks are here."""
        self.share()
