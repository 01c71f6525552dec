"""``answers.jsonl``: every answer as a line, on the disk before the next question is asked.

Each process of an evaluation appends to a file of its own; what a killed process was just writing is no line, and is
cut off when the file is opened again.  At the end all become one file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vilamp.errors import DataError

FILE = "answers.jsonl"
MISSING = "missing_video"
"""The reason of a question whose video is not there; such an answer gives way to any other."""


@dataclass(frozen=True)
class Answer:
    """What became of one question.

    Attributes:
        key: of the question.
        video: the path of its video below the folder of all; of a member of a tar with its place; None for text alone.
        video_bytes: size of that file, None where it is missing.
        reason: why the model was not asked: ``missing_video``, ``decode`` and the like, ``too_long``; empty where it
            was.
        detail: the same in words.
        text: the generated answer, None where none was asked for.
        log_likelihoods: of the options, None where they were not scored.
        right: ``generation`` and ``likelihood`` -> whether that way of answering was right.
        frames: sampled of the video.
        keyframes: their times in seconds.
        visual_tokens: the length of the visual sequence.
        query_cut: the question was cut off for the scorer, which reads so many tokens and no more.
        gaps: frames that stand in for undecodable ones.
        recall: of the evidence spans in which a frame was sampled, the share in which a keyframe lies; None without.
        seconds: of this question, its share of what its video took.
    """

    key: str
    video: str | None
    video_bytes: int | None = None
    reason: str = ""
    detail: str = ""
    text: str | None = None
    log_likelihoods: list[float] | None = None
    right: dict[str, bool] = field(default_factory=dict)
    frames: int = 0
    keyframes: list[float] = field(default_factory=list)
    visual_tokens: int = 0
    query_cut: bool = False
    gaps: int = 0
    recall: float | None = None
    seconds: float = 0.0

    @property
    def asked(self) -> bool:
        """Whether the model was asked."""
        return not self.reason


class AnswerFile:
    """Appends answers of one process.

    Args:
        path: the file; a last line that is not whole is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab+", buffering=0)
        self.file.truncate(_whole(path.read_bytes()))

    def append(self, answers: Iterable[Answer]) -> None:
        """Write answers, and return when they are on the disk."""
        for answer in answers:
            self._write(line_of(answer))
        os.fsync(self.file.fileno())

    def _write(self, line: bytes) -> None:
        while line:
            line = line[self.file.write(line) :]

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def line_of(answer: Answer) -> bytes:
    """The line of an answer."""
    return json.dumps(asdict(answer), ensure_ascii=False).encode() + b"\n"


def _whole(content: bytes) -> int:
    """Bytes of the lines that are whole."""
    return content.rfind(b"\n") + 1


def own_file(folder: Path, rank: int) -> Path:
    """The file that the process of this rank appends to."""
    return folder / (FILE if rank == 0 else f"answers.rank{rank}.jsonl")


def read_answers(folder: Path) -> dict[str, Answer]:
    """Every whole answer in a folder, of all ranks, by its key.

    Raises:
        DataError: a line is none of ours.
    """
    answers = {}
    for path in [folder / FILE, *sorted(folder.glob("answers.rank*.jsonl"))]:
        if not path.is_file():
            continue
        content = path.read_bytes()
        for number, line in enumerate(content[: _whole(content)].splitlines(), 1):
            try:
                answer = Answer(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise DataError(f"{path}, line {number} is no answer: {error}; use another hydra.run.dir") from error
            if answer.reason != MISSING or answer.key not in answers:
                answers[answer.key] = answer
    return answers
