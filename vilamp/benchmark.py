"""All that the author of a benchmark must read.  Needs no torch.

A benchmark is one class and one yaml file (``conf/benchmark/my_benchmark.yaml``).  It reads the file that its authors
publish, asks as they ask, reads answers as they read them, and computes the figures that they report.  What frames are
sampled, how the model answers and what is kept of it is none of its business.

A subclass of :class:`Benchmark` writes ``items``, ``ask`` and ``judge``; one whose questions have options subclasses
:class:`ChoiceBenchmark` and writes ``choose`` instead of ``judge``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The names of options, in order."""


@dataclass(frozen=True)
class VideoFile:
    """Where a video lies; it need not be there.

    Attributes:
        path: a file, or a tar.
        offset, size: of the member of the tar; without them the video is the whole file.
        digest: XXH3 of the bytes, 128 bits in hex, where it is known; they are compared before the video is used.
    """

    path: Path
    offset: int = 0
    size: int | None = None
    digest: str = ""

    @property
    def is_there(self) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(self.path)  # noqa: PTH113  (pathlib raises where a name is too long for any)


@dataclass(frozen=True)
class Stretch:
    """The first frames of a video, at the rate that the benchmark samples at.

    Attributes:
        file: the video.
        frames: how many, at least 1; at least as many are in it.
    """

    file: VideoFile
    frames: int


@dataclass(frozen=True)
class Spliced:
    """A video that comes about while it is read: a needle between frames of a haystack.

    Its frames are evenly spaced in time, whatever those of the files were.

    Attributes:
        haystack: read one after another; it may be longer than needed.
        needle: all of it is put in.
        before: frames of the haystack in front of the needle.
        length: frames in all; behind the needle the haystack goes on until there are so many.
        fps: frames a second.
    """

    haystack: tuple[Stretch, ...]
    needle: Stretch
    before: int
    length: int
    fps: float


@dataclass(frozen=True)
class Cue:
    """One subtitle: a text that is shown from ``start`` to ``end``, in seconds from the video's first frame."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Attributes:
        key: names it, unlike any other of the benchmark and always the same.
        video: what it is about; None for text alone.
        question: as in the file, without its options where they are apart.
        options: to choose from, as the prompt shows them; none for an open question.
        gold: numbers of the options that count as right.  None at all: the file names no option that exists, and no
            answer is right.
        answer: the right answer to an open question.
        groups: what it counts under: name of a grouping -> its groups (``{"duration": ("short",)}``).
        query: what the frames are searched for; the question unless the file tells something shorter.
        subtitles: of the video, in order; empty without any.
        evidence: spans of time in seconds in which the answer can be seen, where the file tells them.
    """

    key: str
    video: VideoFile | Spliced | None
    question: str
    options: tuple[str, ...] = ()
    gold: tuple[int, ...] = ()
    answer: str = ""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    query: str = ""
    subtitles: tuple[Cue, ...] = ()
    evidence: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Prompt:
    """How a question is put to the model.

    Attributes:
        text: the user's turn, behind the video.
        system: the system's turn; empty for the chat template's own.
        prefill: the beginning of the answering turn, which the model goes on from.
        continuations: for each option the text that chooses it, to be scored by its likelihood; empty where options
            are not scored so.
    """

    text: str
    system: str = ""
    prefill: str = ""
    continuations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What an answer is worth.

    Attributes:
        right: it is the right one.
        readable: it could be read as an answer at all; what cannot is never right.
    """

    right: bool
    readable: bool = True


UNANSWERED = Verdict(right=False, readable=False)
"""Of a question that got no answer: its video is missing, cannot be decoded, or the question does not fit."""


@dataclass(frozen=True)
class Graded:
    """One question and what became of it.

    Attributes:
        item: the question.
        verdict: on the answer.
        answered: False: the model was not asked (:data:`UNANSWERED`).
        text: the answer in words; None where an option was chosen by its likelihood.
    """

    item: Item
    verdict: Verdict
    answered: bool = True
    text: str | None = None


class Benchmark(ABC):
    """Questions about videos, and how their authors ask and score them.

    One object is built by ``conf/benchmark/<name>.yaml``.  ``max_new_tokens`` is a setting of each: the longest answer
    that is generated.

    Attributes:
        max_new_tokens: likewise.
        headline: the name of the figure that is reported first.
        shown_apart: how the names of figures begin that :meth:`finish` shows, and no list of all scores should.
        notes: what a reader of the result must know, for instance where this departs from the authors' way; filled by
            ``items``.
    """

    headline = "accuracy"
    shown_apart: str | None = None

    def __init__(self, max_new_tokens: int) -> None:
        self.max_new_tokens = max_new_tokens
        self.notes: list[str] = []

    @abstractmethod
    def items(self) -> list[Item]:
        """All questions, in the order of the file; those about one video need not stand together.

        Raises:
            DataError: a file is missing, wrong, or not whole; the message says what is missing and where to get it.
        """

    @abstractmethod
    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The prompt for a question.

        Args:
            item: the question.
            times: of the sampled frames, in seconds from the first one; empty without a video.
        """

    @abstractmethod
    def judge(self, item: Item, text: str) -> Verdict:
        """Read a generated answer, without its prefill."""

    def sampling(self) -> dict[str, float]:
        """Settings of ``data`` (``fps``, ``max_frames``) that the questions themselves fix; asked after ``items``."""
        return {}

    def finish(self, result: Mapping[str, Any], folder: Path) -> None:
        """Show or write more than figures, when the result is written.

        Args:
            result: what stands in ``result.json``.
            folder: where that is.
        """
        return

    def figures(self, graded: Sequence[Graded]) -> dict[str, float]:
        """The scores: ``accuracy`` over all questions, whatever became of them, and ``accuracy/<grouping>/<group>``.

        ``accuracy_answered`` is over those that the model was asked.  A question in several groups of one grouping
        counts in each.
        """
        groups: dict[str, list[Graded]] = defaultdict(list)
        for one in graded:
            for grouping, names in one.item.groups.items():
                for name in names:
                    groups[f"accuracy/{grouping}/{name}"].append(one)
        figures = {"accuracy": share_right(graded)}
        answered = [one for one in graded if one.answered]
        if answered:
            figures["accuracy_answered"] = share_right(answered)
        return figures | {name: share_right(groups[name]) for name in sorted(groups)}


class ChoiceBenchmark(Benchmark):
    """A benchmark whose questions have options."""

    @abstractmethod
    def choose(self, item: Item, text: str) -> int | None:
        """The number of the option that a generated answer names; None where it names none."""

    def judge(self, item: Item, text: str) -> Verdict:
        """Right where the option is."""
        choice = self.choose(item, text)
        return Verdict(choice in item.gold, choice is not None)


def share_right(graded: Iterable[Graded]) -> float:
    """Of one question or more, the share that was answered rightly."""
    rights = [one.verdict.right for one in graded]
    return sum(rights) / len(rights)


def mean_of_groups(figures: Mapping[str, float], grouping: str) -> float:
    """The unweighted mean of the accuracies of a grouping's groups, from what :meth:`Benchmark.figures` gives."""
    values = [value for name, value in figures.items() if name.startswith(f"accuracy/{grouping}/")]
    return sum(values) / len(values)


def with_guesses(graded: Sequence[Graded]) -> float:
    """The accuracy that is expected where every unreadable answer is replaced by a random option.

    For authors who draw one: this is the mean over all draws.  A question that was not asked is no guess, and wrong.
    """
    guessed = sum(
        len(one.item.gold) / len(one.item.options)
        for one in graded
        if one.answered and not one.verdict.readable and one.item.options
    )
    return (sum(one.verdict.right for one in graded) + guessed) / len(graded)
