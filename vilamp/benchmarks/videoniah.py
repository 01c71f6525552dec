"""VideoNIAH: needle clips in haystacks of thousands of frames, by length and by depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vilamp.benchmark import LETTERS, Benchmark, Item, Prompt, Spliced, Stretch, Verdict, VideoFile
from vilamp.benchmarks._letters import sturdy
from vilamp.benchmarks.activitynetqa import normalised
from vilamp.data.packing.choices import with_options
from vilamp.errors import ConfigError
from vilamp.report.heatmap import CELL
from vilamp.videoniah.spec import Case, Spec, read_spec
from vilamp.videoniah.table import show


class VideoNIAH(Benchmark):
    """The cases of a specification that `vilamp videoniah build` has made.

    Questions with options are asked and read as in ``multiple_choice``, those without as in ``open_ended``; the paper
    does not say how its own were.  Groups are ``length``, ``depth``, ``kind``, and ``cell``: ``<length>/<depth>``.

    Args:
        spec: the file.
        lengths, depths: only these; None takes all.
        max_new_tokens: of an answer.
    """

    shown_apart = CELL

    def __init__(
        self,
        spec: str,
        lengths: Sequence[int] | None = None,
        depths: Sequence[float] | None = None,
        max_new_tokens: int = 32,
    ) -> None:
        super().__init__(max_new_tokens)
        self.path = Path(spec)
        self.lengths, self.depths = lengths, depths
        self._sampling: dict[str, float] = {}

    def items(self) -> list[Item]:
        """As :meth:`vilamp.benchmark.Benchmark.items`."""
        spec = read_spec(self.path)
        for name, wanted, there in (("lengths", self.lengths, spec.lengths), ("depths", self.depths, spec.depths)):
            unknown = sorted(set(wanted or ()) - set(there))
            if unknown:
                raise ConfigError(f"benchmark.{name}: {self.path} has no {unknown[0]}, only {list(there)}")
        cases = [
            case
            for case in spec.cases
            if case.length in (self.lengths or spec.lengths) and case.depth in (self.depths or spec.depths)
        ]
        spec = replace(spec, cases=cases)
        self._sampling = {"fps": spec.fps, "max_frames": max(case.length for case in cases)}
        if spec.when_short != "error":
            self.notes.append(f"haystacks that are too short were made longer: --when-short {spec.when_short}")
        stretches = [self._haystack(spec, number) for number in range(len(spec.haystacks))]
        return [self._item(spec, case, stretches[case.haystack]) for case in cases]

    def _haystack(self, spec: Spec, number: int) -> tuple[Stretch, ...]:
        """As many of its frames as its cases need."""
        left, stretches = spec.frames_needed(number), []
        for file in spec.haystacks[number]:
            taken = min(left, spec.files[file].frames)
            if taken:
                stretches.append(Stretch(self._file(spec, file), taken))
            left -= taken
        return tuple(stretches)

    def _file(self, spec: Spec, number: int) -> VideoFile:
        file = spec.files[number]
        return VideoFile(self.path.parent / file.path, size=file.bytes, digest=file.xxh3)

    def _item(self, spec: Spec, case: Case, haystack: tuple[Stretch, ...]) -> Item:
        needle = Stretch(self._file(spec, case.needle), spec.files[case.needle].frames)
        length, depth = str(case.length), f"{case.depth:g}"
        groups = {"length": (length,), "depth": (depth,), "cell": (f"{length}/{depth}",)}
        return Item(
            key=case.id,
            video=Spliced(haystack, needle, case.before, case.length, spec.fps),
            question=case.question,
            options=tuple(case.options),
            gold=(LETTERS.index(case.answer),) if case.options else (),
            answer=case.answer,
            groups=groups | ({"kind": (case.kind,)} if case.kind else {}),
            query=case.query,
            evidence=tuple((start, end) for start, end in case.evidence),
        )

    def sampling(self) -> dict[str, float]:
        """As :meth:`vilamp.benchmark.Benchmark.sampling`."""
        return self._sampling

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The question; where there are options, a line for each, and that a letter is wanted."""
        if not item.options:
            return Prompt(item.question)
        return Prompt(with_options(item.question, item.options), continuations=tuple(LETTERS[: len(item.options)]))

    def judge(self, item: Item, text: str) -> Verdict:
        """By the letter, or by the words without case, articles and punctuation."""
        if not item.options:
            return Verdict(normalised(text) == normalised(item.answer), bool(text.strip()))
        choice = sturdy(text, len(item.options))
        return Verdict(choice in item.gold, choice is not None)

    def finish(self, result: Mapping[str, Any], folder: Path) -> None:
        """Depth x length, as a table; the report has it as a heat map."""
        show(result["scores"])
