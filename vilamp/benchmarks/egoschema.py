"""EgoSchema (Mangalam et al., 2023, arXiv 2308.09126): the 500 questions whose answers are public."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vilamp.benchmark import ChoiceBenchmark, Graded, Item, Prompt, with_guesses
from vilamp.benchmarks._files import find_video, read_rows, refuse, require_count
from vilamp.benchmarks._letters import lettered, sturdy
from vilamp.errors import DataError

QUESTIONS = 500
LETTERS = "ABCDE"
FILE, ANSWERS = "questions.json", "subset_answers.json"
GET = "download both files from github.com/egoschema/EgoSchema and set benchmark.root to their folder"
OPTIONS = [f"option {number}" for number in range(5)]


class EgoSchema(ChoiceBenchmark):
    """Questions with five options about clips of three minutes.

    The full set is scored by its organisers only; scores on this subset are not scores on it.  The authors publish
    neither prompt nor rule for multiple choice; this is the prompt in common use.  ``accuracy`` counts an unreadable
    answer as wrong, ``accuracy_guessing`` as a random option, as is common.

    Args:
        root: the folder with ``questions.json`` and ``subset_answers.json``.
        videos: the folder of the videos, ``<q_uid>.mp4``.
        partial: take files with fewer questions than were published.
        max_new_tokens: of an answer.
    """

    def __init__(self, root: str, videos: str, partial: bool = False, max_new_tokens: int = 32) -> None:
        super().__init__(max_new_tokens)
        self.root, self.videos = Path(root), Path(videos)
        self.partial = partial

    def items(self) -> list[Item]:
        """As :meth:`vilamp.benchmark.Benchmark.items`."""
        path, answers = self.root / FILE, self._answers()
        rows = read_rows(path, dict.fromkeys(["q_uid", "question", *OPTIONS], str), GET)
        asked = [row for row in rows if row["q_uid"] in answers]
        lacking = sorted(answers.keys() - {row["q_uid"] for row in asked})
        if not self.partial or not asked:
            refuse(path, [f"no question {key}, which has an answer" for key in lacking], GET)
        require_count("the subset with answers", len(asked), QUESTIONS, self.partial, self.notes)
        self.notes.append("the public subset of 500 questions, not the full set")
        return [
            Item(
                key=row["q_uid"],
                video=find_video(self.videos, row["q_uid"], (".mp4",)),
                question=row["question"],
                options=tuple(row[name] for name in OPTIONS),
                gold=(answers[row["q_uid"]],),
            )
            for row in asked
        ]

    def _answers(self) -> dict[str, int]:
        path = self.root / ANSWERS
        if not path.is_file():
            raise DataError(f"there is no {path}; {GET}")
        try:
            answers = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(f"{path} cannot be read: {error}; {GET}") from error
        if not isinstance(answers, dict) or not answers:
            raise DataError(f"{path} should be an object of q_uid -> 0 to 4; {GET}")
        wrong = [f"{key} is {value!r}" for key, value in answers.items() if value not in range(5) or value is True]
        refuse(path, wrong, GET)
        return answers

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The question and a line for each option."""
        instruction = "Answer with the option's letter from the given choices directly."
        text = "\n".join([item.question, *lettered(item.options), instruction])
        return Prompt(text, continuations=tuple(LETTERS))

    def choose(self, item: Item, text: str) -> int | None:
        """See :func:`vilamp.benchmarks._letters.sturdy`; the "C" of these questions, the camera's wearer, is no C."""
        return sturdy(text, len(LETTERS))

    def figures(self, graded: Sequence[Graded]) -> dict[str, float]:
        """With ``accuracy_guessing``."""
        return super().figures(graded) | {"accuracy_guessing": with_guesses(graded)}
