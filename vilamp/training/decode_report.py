"""Tells who decoded the videos, how many frames are missing of them, and whose embeddings were kept."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from lightning import Callback, LightningModule, Trainer

from vilamp.embedding_cache import SETTING, EmbeddingCache
from vilamp.samples import Batch
from vilamp.training.ranks import gather

log = logging.getLogger(__name__)

OUTCOMES = ("hits", "misses", "rebuilt", "unstored")


class DecodeReport(Callback):
    """Counts videos as ``data/decoded_by/<decoder>``, and frames that stand in for undecodable ones as ``data/gaps``.

    With an embedding cache also ``cache/hits``, ``cache/misses`` and ``cache/rebuilt`` (an entry was there that cannot
    be used, of which the first is told), and ``cache/unstored``, embeddings that could not be kept.

    A video counts every time that it is read.  What other ranks read is added when a validation or an epoch ends, where
    all ranks meet.

    Args:
        cache: that of the run.
    """

    def __init__(self, cache: EmbeddingCache | None = None) -> None:
        self.cache = cache
        self.own: Counter[str] = Counter()
        self.others: Counter[str] = Counter()

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        for video in batch.videos:
            self.own["data/gaps"] += video.gaps
            if video.decoder:
                self.own[f"data/decoded_by/{video.decoder}"] += 1
            if video.lookup is not None:
                self.own[f"cache/{video.lookup.outcome}"] += 1
                if video.lookup.problem and self.own["cache/rebuilt"] == 1:
                    log.warning(
                        "%s: an entry is made anew, cache/rebuilt counts more: %s", SETTING, video.lookup.problem
                    )
        if self.cache is not None:
            self.own["cache/unstored"] = self.cache.unstored

    def share(self) -> None:
        """Add up what all ranks decoded, which must all call this."""
        self.others = sum(gather(self.own), Counter())
        self.others.subtract(self.own)

    def measure(self) -> dict[str, float]:
        """The counts up to now, under the names that they are logged by."""
        always = {"data/gaps"} | ({f"cache/{name}" for name in OUTCOMES} if self.cache is not None else set())
        names = sorted({*always, *self.own, *self.others})
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
