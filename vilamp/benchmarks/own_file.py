"""Anybody's own questions: with options (``multiple_choice``) or without (``open_ended``)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vilamp.benchmark import LETTERS, Benchmark, ChoiceBenchmark, Graded, Item, Prompt, Verdict
from vilamp.benchmarks._letters import sturdy
from vilamp.benchmarks._questions import Fields, QuestionFile
from vilamp.benchmarks.activitynetqa import normalised
from vilamp.data.packing.choices import ANSWERS, RowError, pick_option, read_options, with_options
from vilamp.errors import ConfigError


class OwnFile(Benchmark):
    """What both kinds have in common: how the file is read.

    Questions are scored in all and by ``kind``, where the file has one.
    """

    def __init__(self, annotations: str, videos: str, columns: Mapping[str, str] | None, max_new_tokens: int) -> None:
        super().__init__(max_new_tokens)
        settings = "benchmark.annotations", "benchmark.columns={question: NAME, ...}"
        self.file = QuestionFile(Path(annotations), Path(videos), columns, self._options, *settings)

    def items(self) -> list[Item]:
        """As :meth:`vilamp.benchmark.Benchmark.items`."""
        return self.file.items()

    @abstractmethod
    def _options(self, value: Any, fields: Fields, answer: Any, video: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The options of a row, and the numbers of the right ones."""


class OwnMultipleChoice(OwnFile, ChoiceBenchmark):
    """Questions with two to 26 options, asked as `vilamp pack` writes them for training.

    Args:
        annotations: JSON, JSON lines, CSV or parquet.
        videos: the folder that the rows' videos are relative to.
        columns: field (``question``, ``options``, ``answer``, ``video``, ``kind``, ``query``, ``id``) -> its column,
            where that has another name than those that are known.
        answers: what the file's answers are: ``letter``, ``index`` (from 0) or ``text``; None finds out for each row.
        max_new_tokens: of an answer.
    """

    def __init__(
        self,
        annotations: str,
        videos: str,
        columns: Mapping[str, str] | None = None,
        answers: str | None = None,
        max_new_tokens: int = 32,
    ) -> None:
        super().__init__(annotations, videos, columns, max_new_tokens)
        if answers is not None and answers not in ANSWERS:
            raise ConfigError(f"benchmark.answers must be {', '.join(ANSWERS)} or null, got {answers!r}")
        self.answers = answers

    def _options(self, value: Any, fields: Fields, answer: Any, video: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        options = read_options(value, fields, video)
        if not options:
            raise RowError("bad_options", "no options; questions without are for benchmark=open_ended")
        return tuple(options), (pick_option(options, answer, self.answers, video),)

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The question, a line for each option, and that a letter is wanted."""
        return Prompt(with_options(item.question, item.options), continuations=tuple(LETTERS[: len(item.options)]))

    def choose(self, item: Item, text: str) -> int | None:
        """See :func:`vilamp.benchmarks._letters.sturdy`."""
        return sturdy(text, len(item.options))


class OwnOpenEnded(OwnFile):
    """Questions with short answers.

    ``accuracy`` takes no notice of case, articles and punctuation; ``accuracy_exact`` is to the letter.

    Args:
        annotations, videos, columns, max_new_tokens: as in :class:`OwnMultipleChoice`.
    """

    def __init__(
        self, annotations: str, videos: str, columns: Mapping[str, str] | None = None, max_new_tokens: int = 64
    ) -> None:
        super().__init__(annotations, videos, columns, max_new_tokens)

    def _options(self, value: Any, fields: Fields, answer: Any, video: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        return (), ()

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The question as it stands."""
        return Prompt(item.question)

    def judge(self, item: Item, text: str) -> Verdict:
        """Right if it is the same but for what says nothing; an empty answer cannot be read."""
        return Verdict(normalised(text) == normalised(item.answer), bool(text.strip()))

    def figures(self, graded: Sequence[Graded]) -> dict[str, float]:
        """With ``accuracy_exact``."""
        exact = [one.answered and (one.text or "").strip() == one.item.answer for one in graded]
        return super().figures(graded) | {"accuracy_exact": sum(exact) / len(exact)}
