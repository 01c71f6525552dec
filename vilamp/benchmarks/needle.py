"""The validation shards of a run, the needle data unless it had others, as a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vilamp.benchmark import Benchmark, Item, Prompt, Verdict, VideoFile
from vilamp.benchmarks._files import refuse
from vilamp.data.annotations import MAX_BYTES, parse_annotation
from vilamp.data.needle import NeedleSet
from vilamp.data.patterns import expand_patterns
from vilamp.data.shard_sample import ShardSample
from vilamp.data.shards import index_shards
from vilamp.errors import DataError
from vilamp.samples import Question, SkipSample

GET = "`vilamp inspect` shows what is in a shard; pack it anew, or evaluate without benchmark=, which skips and counts"


class Needle(Benchmark):
    """Open questions from shards, scored by exact match, in all and by kind.

    It asks what a validation asks, with the same random choices, so that ``accuracy`` is the run's ``val/accuracy``.

    Args:
        shards: local ones, as ``data.val``; None takes those of ``generate``.
        generate: the needle data, made where it is not there.
        max_new_tokens: of an answer.
    """

    def __init__(
        self,
        shards: str | Sequence[str] | None = None,
        generate: NeedleSet | None = None,
        max_new_tokens: int = 32,
    ) -> None:
        super().__init__(max_new_tokens)
        self.shards, self.generate = shards, generate

    def items(self) -> list[Item]:
        """As :meth:`vilamp.benchmark.Benchmark.items`."""
        patterns = self.shards
        if patterns is None:
            if self.generate is None:
                raise DataError("benchmark=needle has no shards: give data=shards data.val=..., or data=needle")
            self.generate.prepare()
            patterns = self.generate.patterns()["val"]
        shards = expand_patterns(patterns, "data.val")
        index = index_shards(shards, "data.val")
        items, problems = [], [f"{skip.key or skip.shard}: {skip.detail}" for skip in index.skips]
        for sample in index.samples:
            try:
                items += _items(sample)
            except SkipSample as skip:
                problems.append(f"{sample.key}: {skip}")
        refuse(Path(shards[0]), problems, GET)
        return items

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The question as it stands."""
        return Prompt(item.question)

    def judge(self, item: Item, text: str) -> Verdict:
        """Right to the letter."""
        return Verdict(text.strip() == item.answer, bool(text.strip()))


def _items(sample: ShardSample) -> list[Item]:
    annotation = parse_annotation(sample.read("json", MAX_BYTES))
    extension = sample.video(annotation)
    video = None
    if extension is not None:
        if extension not in sample.members:
            raise SkipSample("missing_member", f"no {sample.key}.{extension} in the shard")
        place = sample.members[extension]
        digest = sample.checksums.get(extension, "")
        video = VideoFile(Path(sample.shard), place.offset, place.size, digest)
    return [_item(f"{sample.key}/{number}", video, question) for number, question in enumerate(annotation.questions)]


def _item(key: str, video: VideoFile | None, question: Question) -> Item:
    return Item(
        key=key,
        video=video,
        question=question.question,
        answer=question.answer,
        groups={"kind": (question.kind,)},
        query=question.query,
        evidence=question.evidence,
    )
