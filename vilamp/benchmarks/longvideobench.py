"""LongVideoBench (Wu et al., 2024, arXiv 2407.15754), the validation set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vilamp.benchmark import ChoiceBenchmark, Cue, Graded, Item, Prompt, VideoFile, with_guesses
from vilamp.benchmarks._files import NUMBER, read_rows, refuse, require_count, text_list
from vilamp.benchmarks._letters import first_capital, lettered
from vilamp.benchmarks._subtitles import around, read_longvideobench
from vilamp.errors import DataError

QUESTIONS = 1337
LETTERS = "ABCDE"
FILE = "lvb_val.json"
GET = "download huggingface.co/datasets/longvideobench/LongVideoBench and set benchmark.root to its folder"
KINDS: dict[str, Any] = {
    "id": str,
    "video_path": str,
    "subtitle_path": str,
    "question": str,
    "candidates": list,
    "correct_choice": int,
    "duration": NUMBER,
    "duration_group": int,
    "question_category": str,
    "starting_timestamp_for_subtitles": NUMBER,
}


class LongVideoBench(ChoiceBenchmark):
    """Questions with three to five options about videos of eight seconds to an hour.

    ``accuracy`` counts an unreadable answer as wrong; ``accuracy_guessing`` replaces it by a random option, which is
    the authors' rule, in expectation.

    Args:
        root: the folder with ``lvb_val.json``, ``videos/`` and ``subtitles/``.
        subtitles: show the subtitles of the sampled frames.  The authors put each between the frames; here all stand
            before the question, because the video is one sequence to the model.
        partial: take a file with fewer questions than were published.
        max_new_tokens: of an answer.
    """

    def __init__(self, root: str, subtitles: bool = False, partial: bool = False, max_new_tokens: int = 32) -> None:
        super().__init__(max_new_tokens)
        self.root = Path(root)
        self.subtitles = subtitles
        self.partial = partial

    def items(self) -> list[Item]:
        """As :meth:`vilamp.benchmark.Benchmark.items`."""
        path = self.root / FILE
        rows = read_rows(path, KINDS, f"the test set has no answers; {GET}")
        refuse(path, [problem for row in rows if (problem := _problem(row))], GET)
        require_count(FILE, len(rows), QUESTIONS, self.partial, self.notes)
        cues = [self._cues(row) for row in rows]
        if self.subtitles:
            if not any(cues):
                raise DataError(
                    f"benchmark.subtitles=true, and no subtitle file is in {self.root / 'subtitles'}; unpack "
                    "subtitles.tar of the set there"
                )
            self.notes.append("subtitles stand before the question, not between the frames as the authors have them")
            self.notes.append(f"{sum(not of_row for of_row in cues)} of {len(rows)} questions have no subtitles")
        return [
            Item(
                key=row["id"],
                video=VideoFile(self.root / "videos" / row["video_path"]),
                question=row["question"],
                options=tuple(row["candidates"]),
                gold=(row["correct_choice"],),
                groups={name: (str(row[name]),) for name in ("duration_group", "question_category")},
                subtitles=of_row,
            )
            for row, of_row in zip(rows, cues, strict=True)
        ]

    def _cues(self, row: dict[str, Any]) -> tuple[Cue, ...]:
        file = self.root / "subtitles" / row["subtitle_path"]
        if not self.subtitles or not file.is_file():
            return ()
        return read_longvideobench(file, row["starting_timestamp_for_subtitles"], row["duration"])

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The prompt of the authors."""
        shown = [cue.text for cue in around(item.subtitles, times)]
        instruction = "Answer with the option's letter from the given choices directly."
        lines = [*shown, f"Question: {item.question}", *lettered(item.options), instruction]
        return Prompt("\n".join(lines), continuations=tuple(LETTERS[: len(item.options)]))

    def choose(self, item: Item, text: str) -> int | None:
        """The first capital of A to E, also where the question has fewer options: that is a wrong answer."""
        return first_capital(text, LETTERS)

    def figures(self, graded: Sequence[Graded]) -> dict[str, float]:
        """With ``accuracy_guessing``."""
        return super().figures(graded) | {"accuracy_guessing": with_guesses(graded)}


def _problem(row: dict[str, Any]) -> str:
    options = text_list(row["candidates"])
    if options is None or not 2 <= len(options) <= len(LETTERS):
        return f"{row['id']}: candidates should be two to five texts, got {repr(row['candidates'])[:80]}"
    if not 0 <= row["correct_choice"] < len(options):
        return f"{row['id']}: correct_choice is {row['correct_choice']} of {len(options)} candidates, counted from 0"
    return ""
