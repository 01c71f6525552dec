"""What is counted over the questions of an epoch."""

from __future__ import annotations

from collections import defaultdict

import torch.distributed as dist

from vilamp.models.video_lm import Output
from vilamp.samples import Batch


def keyframe_recall(batch: Batch, output: Output, index: int) -> float | None:
    """Share of a question's evidence spans in which a keyframe lies; None where the file names no evidence."""
    question, selection = batch.questions[index], output.selections[index]
    if selection is None or not question.source.evidence:
        return None
    times = batch.videos[batch.video_of[index]].timestamps[selection.keyframes.cpu()]
    hits = [bool(((times >= start) & (times < end)).any()) for start, end in question.source.evidence]
    return sum(hits) / len(hits)


class QuestionMetrics:
    """Sums over questions, and their means when an epoch ends.  Every number is a mean over questions of all ranks."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        """Add a value to a mean."""
        self.sums[name] += value * weight
        self.counts[name] += weight

    def update(self, batch: Batch, output: Output) -> None:
        """Add a batch: loss per answer token, accuracy (exact match) in all and by kind, recall, visual tokens."""
        if output.answer_tokens:
            self.add("loss", output.loss.item(), output.answer_tokens)
        for index, (question, exact) in enumerate(zip(batch.questions, output.exact.tolist(), strict=True)):
            self.add("accuracy", exact)
            self.add(f"accuracy/{question.source.kind}", exact)
            if batch.video_of[index] >= 0:
                self.add("visual_tokens", output.visual_tokens[index])
            recall = keyframe_recall(batch, output, index)
            if recall is not None:
                self.add("keyframe_recall", recall)

    def compute(self) -> dict[str, float]:
        """The means, gathered over all ranks, and a fresh start."""
        parts = [(dict(self.sums), dict(self.counts))]
        if dist.is_available() and dist.is_initialized():
            gathered: list[tuple[dict[str, float], dict[str, float]] | None] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, parts[0])
            parts = [part for part in gathered if part is not None]
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, float] = defaultdict(float)
        for part_sums, part_counts in parts:
            for name in part_sums:
                sums[name] += part_sums[name]
                counts[name] += part_counts[name]
        self.__init__()  # type: ignore[misc]
        return {name: sums[name] / counts[name] for name in sorted(sums)}
