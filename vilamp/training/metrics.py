"""What is counted over the questions of an epoch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from vilamp.models.video_lm import Output
from vilamp.samples import Batch
from vilamp.training.ranks import gather


@dataclass(frozen=True)
class Recall:
    """What became of a question's evidence spans.

    Attributes:
        hit: spans in which a keyframe lies.
        missed: spans in which frames were sampled and no keyframe lies.
        unsampled: spans in which no frame was sampled, so that no selector could have hit them.
    """

    hit: int
    missed: int
    unsampled: int

    @property
    def share(self) -> float | None:
        """Of the spans that could be hit, those that were; None where there is none."""
        sampled = self.hit + self.missed
        return self.hit / sampled if sampled else None


def keyframe_recall(batch: Batch, output: Output, index: int) -> Recall | None:
    """Whether keyframes lie in a question's evidence spans; None where the file names no evidence."""
    question, selection = batch.questions[index], output.selections[index]
    if selection is None:
        return None
    times = batch.videos[batch.video_of[index]].timestamps
    return recall_of(question.source.evidence, times, times[selection.keyframes.cpu()])


def recall_of(evidence: Sequence[tuple[float, float]], times: Tensor, chosen: Tensor) -> Recall | None:
    """What became of evidence spans, None where there is none.

    Args:
        evidence: spans in seconds.
        times: float64[N], of the sampled frames.
        chosen: float64[K], of the keyframes.
    """
    if not evidence:
        return None
    within = [tuple(bool(((of >= start) & (of < end)).any()) for of in (chosen, times)) for start, end in evidence]
    kinds = Counter(within)
    return Recall(hit=kinds[True, True], missed=kinds[False, True], unsampled=kinds[False, False])


def depth_of(evidence: Sequence[tuple[float, float]], times: Tensor) -> str | None:
    """The fifth of the video in which the middle of the evidence lies, as "0.2-0.4"; None without evidence.

    Args:
        evidence: spans in seconds.
        times: float64[N], of the sampled frames; the last one counts as the end of the video.
    """
    if not evidence:
        return None
    middle = (min(start for start, _ in evidence) + max(end for _, end in evidence)) / 2
    fifth = min(int(5 * middle / max(float(times[-1]), middle, 1e-9)), 4)
    return f"{fifth / 5:.1f}-{(fifth + 1) / 5:.1f}"


class QuestionMetrics:
    """Sums over the questions of an epoch and of all ranks: means over questions, and counts."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.weights: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)
        self.right: dict[str, bool] = {}

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        """Add a value to a mean."""
        self.sums[name] += value * weight
        self.weights[name] += weight

    def update(self, batch: Batch, output: Output) -> None:
        """Add a batch: loss per answer token, accuracy (exact match), recall, visual tokens, and how many questions.

        Accuracy is that in all, by kind, and by :func:`depth_of` the evidence.

        ``keyframe_recall`` is the mean over questions of the share of evidence spans in which a keyframe lies.  A span
        in which no frame was sampled takes no part, and is counted in ``evidence_unsampled``.
        """
        if output.answer_tokens:
            self.add("loss", output.loss.item(), output.answer_tokens)
        for index, (question, exact) in enumerate(zip(batch.questions, output.exact.tolist(), strict=True)):
            self.counts["questions"] += 1
            self.right[question.key] = exact
            self.add("accuracy", exact)
            self.add(f"accuracy/{question.source.kind}", exact)
            if batch.video_of[index] >= 0:
                self.add("visual_tokens", output.visual_tokens[index])
                depth = depth_of(question.source.evidence, batch.videos[batch.video_of[index]].timestamps)
                if depth is not None:
                    self.add(f"accuracy_by_depth/{depth}", exact)
            recall = keyframe_recall(batch, output, index)
            if recall is not None:
                self.counts["evidence_unsampled"] += recall.unsampled
                if recall.share is not None:
                    self.add("keyframe_recall", recall.share)

    def compute(self) -> tuple[dict[str, float], dict[str, bool]]:
        """The means and counts, and key of a question -> whether it is right; of all ranks, and a fresh start."""
        parts = gather((dict(self.sums), dict(self.weights), dict(self.counts)))
        right = {key: exact for of_rank in gather(self.right) for key, exact in of_rank.items()}
        sums, weights, counts = (_total(kind) for kind in zip(*parts, strict=True))
        self.__init__()  # type: ignore[misc]
        means = {name: sums[name] / weights[name] for name in sums}
        return dict(sorted((means | counts).items())), right


def _total(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for part in parts:
        for name, value in part.items():
            total[name] += value
    return dict(total)
