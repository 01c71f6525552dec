"""The ``.json`` member of a sample: read, bounded and checked (the format is written down in ``data/README.md``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from vilamp.data.bounded_json import parse_json
from vilamp.samples import Question, SkipSample

MAX_BYTES = 1 << 20
"""Of the file; a larger one is not even read."""
MAX_QUESTIONS = 1000
MAX_TEXT = 100_000
"""Characters of a question, an answer or a query."""
MAX_NAME = 64
"""Characters of a kind and of a video's extension."""
MAX_SECONDS = 10**9
VIDEO_EXTENSIONS = frozenset({"mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "mpg", "mpeg", "flv", "wmv", "ogv"})
"""By which a video is recognised that nothing names."""


@dataclass(frozen=True)
class Annotation:
    """What is asked about one video.

    Attributes:
        video: extension of the member that holds the video, None for text-only questions.
        questions: at least one.
    """

    video: str | None
    questions: tuple[Question, ...]


def parse_annotation(source: bytes) -> Annotation:
    """Read the bytes of a ``.json`` member.  Fields that are not listed in the format are left alone.

    Raises:
        SkipSample: ``bad_json``, naming the field and what it holds.
    """
    try:
        root = parse_json(source)
    except ValueError as error:  # UnicodeDecodeError is one
        raise SkipSample("bad_json", f"{type(error).__name__}: {str(error)[:200]}") from error
    if not isinstance(root, dict):
        raise _bad("the file", "an object", root)
    video = root.get("video")
    if video is not None:
        video = _text(video, "video", MAX_NAME).removeprefix(".")
    questions = root.get("questions")
    if not isinstance(questions, list) or not 1 <= len(questions) <= MAX_QUESTIONS:
        raise _bad("questions", f"a list of 1 to {MAX_QUESTIONS} objects", questions)
    return Annotation(video, tuple(_question(fields, f"questions[{i}]") for i, fields in enumerate(questions)))


def _question(fields: Any, where: str) -> Question:
    if not isinstance(fields, dict):
        raise _bad(where, "an object", fields)
    question = _text(fields.get("question"), f"{where}.question", MAX_TEXT)
    query, kind = fields.get("query"), fields.get("kind")
    return Question(
        question=question,
        answer=_text(fields.get("answer"), f"{where}.answer", MAX_TEXT),
        query=question if query is None else _text(query, f"{where}.query", MAX_TEXT),
        kind="other" if kind is None else _text(kind, f"{where}.kind", MAX_NAME),
        evidence=parse_spans(fields.get("evidence"), f"{where}.evidence"),
    )


def parse_spans(value: Any, where: str) -> tuple[tuple[float, float], ...]:
    """Spans of time in seconds; none where there is no value.

    Raises:
        SkipSample: ``bad_json``, naming the field ``where`` and what it holds.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(span, list) and len(span) == 2 for span in value):
        raise _bad(where, "a list of [start, end] pairs", value)
    for span in value:
        numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in span)
        # Compared, not converted: a whole number may be too large for a float.  NaN compares false.
        if not numbers or not 0 <= span[0] <= span[1] <= MAX_SECONDS:
            raise _bad(where, f"seconds with 0 <= start <= end <= {MAX_SECONDS}", span)
    return tuple((float(start), float(end)) for start, end in value)


def _text(value: Any, where: str, longest: int) -> str:
    # JSON can spell half of a surrogate pair, which is no text to a tokenizer.
    if not isinstance(value, str) or not value.strip() or len(value) > longest or re.search(r"[\ud800-\udfff]", value):
        raise _bad(where, f"a text of 1 to {longest} characters", value)
    return value


def _bad(where: str, wanted: str, value: Any) -> SkipSample:
    seen = "nothing" if value is None else repr(value)[:100]
    return SkipSample("bad_json", f"{where} must be {wanted}, got {seen}")
