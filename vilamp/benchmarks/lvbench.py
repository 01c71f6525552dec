"""LVBench (Wang et al., 2024, arXiv 2406.08035)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vilamp.benchmark import ChoiceBenchmark, Item, Prompt
from vilamp.benchmarks._files import find_video, read_rows, refuse, require_count, text_list
from vilamp.benchmarks._letters import sturdy

QUESTIONS = 1549
LETTERS = "ABCD"
FILE = "video_info.meta.jsonl"
GET = "download huggingface.co/datasets/THUDM/LVBench and set benchmark.root to its folder"
_OPTION = re.compile(r"^\s*\(?([A-D])[).:]\s*(\S.*)$", re.MULTILINE)


class LVBench(ChoiceBenchmark):
    """Questions with four options about 103 videos of half an hour to two hours.

    A question counts in each of its types.  ``accuracy`` is over all questions; the authors' script leaves out those
    without an answer, which is ``accuracy_answered``.  They publish no prompt; this is the one in common use.  Their
    helper that reads letters takes "The answer is B" for T, so a sturdier one is used.  The time reference of a
    question is never shown to the model.

    Args:
        root: the folder with ``video_info.meta.jsonl``.
        videos: the folder of the videos, ``<key>.mp4``; they are downloaded from YouTube by their keys.
        partial: take a file with fewer questions than were published.
        max_new_tokens: of an answer.
    """

    def __init__(self, root: str, videos: str, partial: bool = False, max_new_tokens: int = 32) -> None:
        super().__init__(max_new_tokens)
        self.root, self.videos = Path(root), Path(videos)
        self.partial = partial

    def items(self) -> list[Item]:
        """As :meth:`vilamp.benchmark.Benchmark.items`."""
        path = self.root / FILE
        rows = read_rows(path, {"key": str, "type": str, "qa": list}, GET)
        asked = [(row, question) for row in rows for question in row["qa"]]
        refuse(path, [problem for row, question in asked if (problem := _problem(row, question))], GET)
        require_count(FILE, len(asked), QUESTIONS, self.partial, self.notes)
        return [
            Item(
                key=str(question["uid"]),
                video=find_video(self.videos, row["key"], (".mp4", ".mkv", ".webm")),
                question=question["question"],
                options=tuple(option.strip() for _, option in _OPTION.findall(question["question"])),
                gold=(LETTERS.index(question["answer"]),),
                groups={"type": tuple(question["question_type"]), "genre": (row["type"],)},
                query=question["question"][: _OPTION.search(question["question"]).start()].strip(),  # type: ignore[union-attr]
            )
            for row, question in asked
        ]

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The question, which holds its options."""
        text = f"{item.question.strip()}\nAnswer the question with the option letter"
        return Prompt(text, continuations=tuple(LETTERS))

    def choose(self, item: Item, text: str) -> int | None:
        """See :func:`vilamp.benchmarks._letters.sturdy`."""
        return sturdy(text, len(LETTERS))


def _problem(row: dict[str, Any], question: Any) -> str:
    if not isinstance(question, dict) or question.get("uid") is None or not isinstance(question.get("question"), str):
        return f"{row['key']}: a question should have a uid and a text, got {repr(question)[:80]}"
    where = f"{row['key']}, uid {question['uid']}"
    found = [letter for letter, _ in _OPTION.findall(question["question"])]
    if found != list(LETTERS):
        return f"{where}: four lines from (A) to (D) belong into the question, found {', '.join(found) or 'none'}"
    if question.get("answer") not in tuple(LETTERS):
        return f"{where}: the answer is {question.get('answer')!r}, a letter of A to D belongs there"
    return "" if text_list(question.get("question_type")) else f"{where}: question_type should be a list of texts"
