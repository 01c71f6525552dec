"""What a run watches besides loss and accuracy: memory, speed, and samples that could not be used."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from vilamp.samples import Batch, Skip
from vilamp.training.memory import peak_rss_gib, reset_peak_rss, tree_gib
from vilamp.training.ranks import first_rank, gather
from vilamp.training.skip_limit import MEET_EVERY

SAMPLE_EVERY = 100
"""So many times as long as the last sample of the memory took until the next one."""


class ResourceMonitor(Callback):
    """Logs ``memory/peak_rss_gib``, ``memory/peak_tree_gib``, ``memory/peak_gib`` (CUDA), and the throughput.

    ``memory/peak_tree_gib`` (Linux) is the largest of samples of :func:`~vilamp.training.memory.tree_gib`: one at the
    end of the first step, and then one at the end of a step as often as sampling takes a hundredth of the time.

    Throughput (``throughput/frames_per_s`` and ``.../videos_per_s``) counts what training steps of all ranks consumed,
    from the end of one step to the end of the next, so that waiting for data is part of it; validation is not.  The
    time of these steps is ``throughput/seconds``.  Ranks tell each other what they reach every :data:`MEET_EVERY` steps
    and when an epoch ends; before they first do, there is no throughput.
    """

    def __init__(self) -> None:
        self.tree = 0.0
        self.next_sample = 0.0
        self.own: Counter[str] = Counter()
        self.others: dict[str, float] | None = None
        """Items a second of the other ranks; None before they have told."""
        self.seconds = 0.0
        self.mark: float | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the peaks of what ran before in this process."""
        reset_peak_rss()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if trainer.world_size == 1:
            self.others = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.mark = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.mark = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        self.mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count, and log."""
        now = time.perf_counter()
        if self.mark is not None:
            self.seconds += now - self.mark
            self.own["frames"] += sum(len(video) for video in batch.videos)
            self.own["videos"] += len(batch.videos)
        if (batch_idx + 1) % MEET_EVERY == 0:  # all ranks have equally many steps
            self.share()
        self.mark = now
        if now >= self.next_sample:
            self.tree = max(self.tree, tree_gib() or 0.0)
            took = time.perf_counter() - now
            self.next_sample = now + took * SAMPLE_EVERY
        pl_module.log_dict(self.measure())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All ranks are here."""
        self.share()

    def share(self) -> None:
        """Learn what the other ranks reach; all must call this."""
        own = self._rates()
        rates = gather(own)
        self.others = {name: sum(rate[name] for rate in rates) - own[name] for name in own}

    def _rates(self) -> dict[str, float]:
        """Items a second of this rank."""
        return {name: self.own[name] / self.seconds if self.seconds else 0.0 for name in ("frames", "videos")}

    def measure(self) -> dict[str, float]:
        """The figures up to now, under the names that they are logged by."""
        rss = peak_rss_gib()
        figures = {"memory/peak_rss_gib": rss}
        if self.tree:
            figures["memory/peak_tree_gib"] = max(self.tree, rss)  # the last sample may be older than that peak
        if torch.cuda.is_available():
            figures["memory/peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if self.seconds:
            figures["throughput/seconds"] = self.seconds
        if self.seconds and self.others is not None:
            figures |= {
                f"throughput/{name}_per_s": rate + self.others.get(name, 0.0) for name, rate in self._rates().items()
            }
        return figures


class SkipReport(Callback):
    """Counts skipped samples as ``data/skipped`` (and ``data/skipped/<reason>``), lists them in ``quarantine.jsonl``.

    A sample that fails in every epoch, or on several ranks, is counted and listed once.  The first rank writes.  It
    knows of its own skips at once, and of the others' when a validation or an epoch ends, where all ranks meet; what
    another rank skipped after the last such end is lost if the run breaks off.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "quarantine.jsonl"
        self.seen: set[tuple[str, str]] = set()
        self.reasons: Counter[str] = Counter()
        self.unshared: list[Skip] = []

    def read_back(self) -> None:
        """Count what a run that goes on has listed already."""
        if self.file.exists():
            rows = [json.loads(line) for line in self.file.read_text().splitlines() if line.endswith("}")]
            self.seen.update((row["shard"], row["key"]) for row in rows)
            self.reasons = Counter(row["reason"] for row in rows)

    def report(self, skips: Iterable[Skip]) -> None:
        """Count and list what is new."""
        for skip in skips:
            if (skip.shard, skip.key) not in self.seen:
                self.unshared.append(skip)
                self._add(skip)

    def share(self) -> None:
        """Count and list what is new on the other ranks, which must all call this."""
        for of_rank in gather(self.unshared):
            for skip in of_rank:
                if (skip.shard, skip.key) not in self.seen:
                    self._add(skip)
        self.unshared = []

    def _add(self, skip: Skip) -> None:
        self.seen.add((skip.shard, skip.key))
        self.reasons[skip.reason] += 1
        if first_rank():
            with self.file.open("a") as lines:
                row = {"key": skip.key, "shard": skip.shard, "reason": skip.reason, "detail": skip.detail}
                lines.write(json.dumps(row) + "\n")

    def measure(self) -> dict[str, float]:
        """The counts up to now, under the names that they are logged by."""
        return {"data/skipped": float(self.reasons.total())} | {
            f"data/skipped/{reason}": float(count) for reason, count in sorted(self.reasons.items())
        }

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Report what the index of the shards already told."""
        self.report(trainer.datamodule.skips)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Report what this batch should have held."""
        self.report(batch.skipped)
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
        """Report what this batch should have held."""
        self.report(batch.skipped)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All ranks are here."""
        self.share()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All ranks are here."""
        self.share()
