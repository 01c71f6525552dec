"""ActivityNet-QA (Yu et al., 2019, arXiv 1906.02467), scored by exact match as its authors do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from vilamp.benchmark import Benchmark, Graded, Item, Prompt, Verdict
from vilamp.benchmarks._files import find_video, read_rows, refuse, require_count
from vilamp.errors import ConfigError

Split = Literal["test", "val"]
QUESTIONS = {"test": 8000, "val": 18000}
TYPES = ("motion", "spatial", "temporal", "yes_no", "colour", "object", "location", "number", "other")
FREE = 3
"""The types from this one on are pooled as ``free``."""
GET = "download dataset/ of github.com/MILVLG/activitynet-qa and set benchmark.root to it"


class ActivityNetQA(Benchmark):
    """Open questions about videos of up to some minutes, with answers of a word or two.

    ``accuracy`` is the authors': the answer is the right one to the letter.  ``accuracy_normalised`` takes no notice of
    case, articles and punctuation.  Scores of a language model as judge, which most papers report, are another thing;
    they depend on the judge and need a network, and are not computed.

    Args:
        root: the folder with ``<split>_q.json`` and ``<split>_a.json``.
        videos: the folder of the videos, ``v_<video_name>.mp4``, ``.mkv`` or ``.webm``.
        split: ``test``, which is what papers report, or ``val``.
        partial: take files with fewer questions than were published.
        max_new_tokens: of an answer.
    """

    def __init__(
        self, root: str, videos: str, split: Split = "test", partial: bool = False, max_new_tokens: int = 32
    ) -> None:
        super().__init__(max_new_tokens)
        if split not in get_args(Split):
            raise ConfigError(f"benchmark.split must be {' or '.join(get_args(Split))}, got {split!r}")
        self.root, self.videos = Path(root), Path(videos)
        self.split = split
        self.partial = partial

    def items(self) -> list[Item]:
        """As :meth:`vilamp.benchmark.Benchmark.items`."""
        asked_in, answered_in = (self.root / f"{self.split}_{kind}.json" for kind in "qa")
        rows = read_rows(asked_in, dict.fromkeys(("video_name", "question", "question_id"), str), GET)
        answers = {
            row["question_id"]: row
            for row in read_rows(answered_in, {"answer": str, "type": int, "question_id": str}, GET)
        }
        lacking = [row["question_id"] for row in rows if row["question_id"] not in answers]
        refuse(answered_in, [f"no answer to {key}" for key in lacking], GET)
        strange = [key for key, row in answers.items() if not 0 <= row["type"] < len(TYPES)]
        refuse(answered_in, [f"{key} has the type {answers[key]['type']}, not 0 to 8" for key in strange], GET)
        require_count(asked_in.name, len(rows), QUESTIONS[self.split], self.partial, self.notes)
        self.notes.append("exact match; not comparable with scores of a language model as judge")
        return [
            Item(
                key=row["question_id"],
                video=find_video(self.videos, f"v_{row['video_name']}", (".mp4", ".mkv", ".webm")),
                question=row["question"],
                answer=answers[row["question_id"]]["answer"],
                groups={"type": _types(answers[row["question_id"]]["type"])},
            )
            for row in rows
        ]

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The question as a sentence, and how long an answer is wanted."""
        question = item.question.strip()
        sentence = question[:1].upper() + question[1:].rstrip("?")
        return Prompt(f"{sentence}? Answer the question using a single word or phrase.")

    def judge(self, item: Item, text: str) -> Verdict:
        """Right if it is the same text; an empty answer cannot be read."""
        return Verdict(text == item.answer, bool(text.strip()))

    def figures(self, graded: Sequence[Graded]) -> dict[str, float]:
        """With ``accuracy_normalised``."""
        same = [one.answered and normalised(one.text or "") == normalised(one.item.answer) for one in graded]
        return super().figures(graded) | {"accuracy_normalised": sum(same) / len(same)}


def _types(number: int) -> tuple[str, ...]:
    return (TYPES[number], "free") if number >= FREE else (TYPES[number],)


def normalised(text: str) -> str:
    """In small letters, without articles, punctuation and spaces that say nothing."""
    words = re.sub(r"[^\w\s]", " ", text.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))
