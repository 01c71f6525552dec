"""Video-MME (Fu et al., 2024, arXiv 2405.21075), without and with subtitles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vilamp.benchmark import ChoiceBenchmark, Cue, Graded, Item, Prompt, share_right
from vilamp.benchmarks._files import find_video, read_rows, refuse, require_count, text_list
from vilamp.benchmarks._letters import first_capital
from vilamp.benchmarks._subtitles import read_srt, shown_at
from vilamp.errors import DataError

QUESTIONS, VIDEOS_PER_DURATION = 2700, 300
LETTERS = "ABCD"
DURATIONS = ("short", "medium", "long")
GROUPS = ("duration", "domain", "sub_category", "task_type")
FILE = "videomme/test-00000-of-00001.parquet"
GET = "download huggingface.co/datasets/lmms-lab/Video-MME and set benchmark.root to its folder"
INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
SUBTITLES = "This video's subtitles are listed below:"


class VideoMME(ChoiceBenchmark):
    """Questions with four options about videos of eleven seconds to an hour.

    ``accuracy`` counts an unreadable answer as wrong; ``accuracy_official``, as the authors' script does, leaves it out
    of the denominator, together with questions that were not asked.

    Args:
        root: the folder with ``videomme/``, ``data/`` and ``subtitle/``.
        subtitles: show the subtitles of the sampled frames, each once.  Some videos have none, and their questions
            count all the same.
        partial: take a file with fewer questions than were published.
        max_new_tokens: of an answer.
    """

    def __init__(self, root: str, subtitles: bool = False, partial: bool = False, max_new_tokens: int = 16) -> None:
        super().__init__(max_new_tokens)
        self.root = Path(root)
        self.subtitles = subtitles
        self.partial = partial

    def items(self) -> list[Item]:
        """As :meth:`vilamp.benchmark.Benchmark.items`."""
        path = self.root / FILE
        names = ("question_id", "videoID", *GROUPS, "question", "answer")
        rows = read_rows(path, dict.fromkeys(names, str) | {"options": list}, GET)
        refuse(path, [problem for row in rows if (problem := _problem(row))], GET)
        require_count(FILE, len(rows), QUESTIONS, self.partial, self.notes)
        for duration in DURATIONS:
            videos = len({row["videoID"] for row in rows if row["duration"] == duration})
            if videos != VIDEOS_PER_DURATION and not self.partial:
                raise DataError(f"{FILE}: {videos} of {VIDEOS_PER_DURATION} {duration} videos; {GET}")
        cues = {name: self._cues(name) for name in dict.fromkeys(row["videoID"] for row in rows)}
        if self.subtitles:
            self._tell_subtitles(sum(not of_video for of_video in cues.values()), len(cues))
        return [
            Item(
                key=row["question_id"],
                video=find_video(self.root / "data", row["videoID"], (".mp4", ".MP4", ".mkv")),
                question=row["question"],
                options=tuple(row["options"]),
                gold=(LETTERS.index(row["answer"]),),
                groups={name: (row[name],) for name in GROUPS},
                subtitles=cues[row["videoID"]],
            )
            for row in rows
        ]

    def _cues(self, name: str) -> tuple[Cue, ...]:
        file = self.root / "subtitle" / f"{name}.srt"
        return read_srt(file) if self.subtitles and file.is_file() else ()

    def _tell_subtitles(self, without: int, videos: int) -> None:
        if without == videos:
            raise DataError(
                f"benchmark.subtitles=true, and there is no {self.root / 'subtitle'}/*.srt of these videos; unpack "
                "subtitle.zip of the set there"
            )
        self.notes.append(f"{without} of {videos} videos have no subtitles; their questions are asked without")

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The prompt of the authors; with subtitles those on screen at the sampled frames stand before it."""
        shown = [cue.text for cue in shown_at(item.subtitles, times)]
        before = [SUBTITLES, *shown] if shown else []
        lines = [*before, INSTRUCTION, item.question, *item.options, "The best answer is:"]
        return Prompt("\n".join(lines), continuations=tuple(LETTERS))

    def choose(self, item: Item, text: str) -> int | None:
        """The rule of the authors' script."""
        return first_capital(text, LETTERS)

    def figures(self, graded: Sequence[Graded]) -> dict[str, float]:
        """With ``accuracy_official``."""
        read = [one for one in graded if one.verdict.readable]
        return super().figures(graded) | ({"accuracy_official": share_right(read)} if read else {})


def _problem(row: dict[str, object]) -> str:
    options = text_list(row["options"])
    if options is None or [option[:2] for option in options] != [f"{letter}." for letter in LETTERS]:
        return (
            f"{row['question_id']}: options should be four texts from 'A. ' to 'D. ', got {repr(row['options'])[:80]}"
        )
    if row["answer"] not in tuple(LETTERS):
        return f"{row['question_id']}: the answer is {row['answer']!r}, a letter of A to D belongs there"
    if row["duration"] not in DURATIONS:
        return f"{row['question_id']}: the duration is {row['duration']!r}, not one of {', '.join(DURATIONS)}"
    return ""
