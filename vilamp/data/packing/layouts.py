"""From the rows of annotation files to questions about videos."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilamp.data.annotations import parse_spans
from vilamp.data.bounded_json import parse_json
from vilamp.data.index_file import LEFT_BY_PACKING, LeftOut
from vilamp.data.packing.choices import OPTION_NAMES, RowError, pick_option, read_options, with_options
from vilamp.data.packing.records import SUFFIXES, Record, read_records
from vilamp.errors import DataError
from vilamp.samples import SkipSample

CONVERSATIONS, QA, LLAVA_VIDEO = "conversations", "qa", "llava-video-178k"
FORMATS = (CONVERSATIONS, QA, LLAVA_VIDEO)

ALIASES: Mapping[str, tuple[str, ...]] = {
    "video": ("video", "video_path", "video_name", "video_id", "videoID", "vid"),
    "conversations": ("conversations",),
    "question": ("question", "Q", "problem"),
    "options": ("options", "candidates", "choices"),
    "answer": ("answer", "correct_answer", "correct_option", "label"),
    "query": ("query",),
    "kind": ("kind", "type", "question_type", "task_type", "category"),
    "id": ("id", "qid", "question_id"),
    "evidence": ("evidence",),
}
"""What is read -> the columns in which it is looked for, in this order."""

_PLACEHOLDER = re.compile(r"\s*<(?:image|video)>\s*")
_ASKS, _ANSWERS = {"human", "user"}, {"gpt", "assistant"}


@dataclass(frozen=True)
class Row:
    """Questions about one video.

    Attributes:
        source: ``<file>:<number>``.
        folder: of the file, below the annotations; ``""`` for a single file.
        video: as the row spells it, None for text-only questions.
        questions: the fields of each, as they go into a shard's JSON.
    """

    source: str
    folder: str
    video: str | None
    questions: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Annotations:
    """What was read.

    Attributes:
        format: one of :data:`FORMATS`.
        rows: those that can be used so far.
        left_out: all others.
    """

    format: str
    rows: list[Row]
    left_out: list[LeftOut]


def read_annotations(
    path: Path, form: str | None = None, columns: Mapping[str, str] | None = None, answers: str | None = None
) -> Annotations:
    """Read annotations.

    Args:
        path: a file, or the folder of a set in the layout of LLaVA-Video-178K.
        form: one of :data:`FORMATS`; None detects it.
        columns: name of :data:`ALIASES` -> the column in which it stands.
        answers: what the answers of multiple-choice rows are: ``letter``, ``index`` (from 0) or ``text``; None finds
            that out for each row.

    Raises:
        DataError: nothing there, an unreadable file, or no known layout.
    """
    mapped = dict(columns or {})
    unknown = sorted(mapped.keys() - ALIASES.keys())
    if unknown:
        raise DataError(f"--column {unknown[0]}=...: there is no such field; there are {', '.join(ALIASES)}")
    if form is None:
        form = LLAVA_VIDEO if path.is_dir() else _detect(path, mapped)
    if (form == LLAVA_VIDEO) != path.is_dir():
        wanted = "the folder of the set" if form == LLAVA_VIDEO else "one file"
        raise DataError(f"{path}: --format {form} reads {wanted}")
    reader = _Reader(mapped, answers)
    parse = reader.qa if form == QA else reader.conversation
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    for folder, record in _records(path):
        row, lost = _parse(parse, record, folder)
        rows += row
        left_out += lost
    if not rows and not left_out:
        raise DataError(f"{path}: there are no rows")
    return Annotations(form, rows, left_out)


def _records(path: Path) -> Iterator[tuple[str, Record]]:
    """(folder of the file, row), in a fixed order."""
    if not path.is_dir():
        yield from (("", record) for record in read_records(path, path.name))
        return
    # Deeper down there are only videos, hundreds of thousands.
    found = [file for pattern in ("*", "*/*") for file in path.glob(pattern) if file.suffix.lower() in SUFFIXES]
    files = [file for file in found if not file.name.endswith(LEFT_BY_PACKING)]
    if not files:
        raise DataError(f"{path}: no annotation file ({', '.join(SUFFIXES)}) in it or in its folders")
    for file in sorted(files):
        name = file.relative_to(path)
        folder = name.parent.as_posix()
        yield from (("" if folder == "." else folder, record) for record in read_records(file, name.as_posix()))


def _detect(path: Path, columns: Mapping[str, str]) -> str:
    records = list(itertools.islice(read_records(path, path.name), 100))
    first = next((record.fields for record in records if record.fields), None)
    if first is None:
        why = f"; the first: {records[0].problem or 'it has no fields'}" if records else ", it has none"
        raise DataError(f"{path}: no row of the first 100 can be read{why}")
    look = _Reader(columns, None)
    if look.get(first, "conversations") is not None:
        return CONVERSATIONS
    if look.get(first, "question") is not None and look.get(first, "answer") is not None:
        return QA
    raise DataError(
        f"{path}: neither conversations nor questions with answers; there is {', '.join(map(repr, first))[:300]}; "
        "name those to read with --column question=NAME --column answer=NAME --column video=NAME"
    )


def _parse(parse: Callable[[dict[str, Any]], Any], record: Record, folder: str) -> tuple[list[Row], list[LeftOut]]:
    if record.fields is None:
        return [], [LeftOut(record.source, "", 1, "bad_row", record.problem)]
    video = ""
    try:
        video, questions, lost = parse(record.fields)
    except RowError as error:
        return [], [LeftOut(record.source, error.video, 1, error.reason, str(error)[:300])]
    left_out = [LeftOut(record.source, video or "", 1, reason, detail[:300]) for reason, detail in lost]
    return [Row(record.source, folder, video, tuple(questions))] if questions else [], left_out


class _Reader:
    """Reads the fields of a row, by the columns that were named for them."""

    def __init__(self, columns: Mapping[str, str], answers: str | None) -> None:
        self.columns = columns
        self.answers = answers

    def get(self, fields: Mapping[str, Any], name: str) -> Any:
        """The value of a field, None where it is not there or empty."""
        names = (self.columns[name],) if name in self.columns else ALIASES[name]
        value = next((fields[column] for column in names if column in fields), None)
        return None if value == "" else value

    def conversation(self, fields: dict[str, Any]) -> tuple[str | None, list[dict[str, Any]], list[tuple[str, str]]]:
        """(video, questions, (reason, detail) of those that cannot be used) of a row of turns."""
        video = self._video(fields)
        turns = self.get(fields, "conversations")
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
            raise RowError("bad_row", f"conversations must be a list of turns, got {repr(turns)[:80]}", video)
        if video is None and any("<video>" in str(t.get("value")) or "<image>" in str(t.get("value")) for t in turns):
            raise RowError("no_video", "the text speaks of a picture or a video, but there is no video")
        questions: list[dict[str, Any]] = []
        lost: list[tuple[str, str]] = []
        asked: str | None = None
        for number, turn in enumerate(turns):
            speaker, text = turn.get("from"), turn.get("value")
            if speaker not in _ASKS | _ANSWERS or not isinstance(text, str):
                raise RowError("bad_row", f"turn {number}: {repr(turn)[:80]} is neither human's nor gpt's", video)
            if speaker in _ASKS:
                if asked is not None:
                    lost.append(("no_answer", f"{asked[:80]!r} has no answer"))
                asked = _PLACEHOLDER.sub("\n", text).strip()
            elif asked is None:
                lost.append(("no_question", f"the answer {text[:80]!r} has no question"))
            else:
                questions.append(self._question(fields, asked, text.strip()))
                asked = None
        if asked is not None:
            lost.append(("no_answer", f"{asked[:80]!r} has no answer"))
        return video, questions, lost

    def qa(self, fields: dict[str, Any]) -> tuple[str | None, list[dict[str, Any]], list[tuple[str, str]]]:
        """The same of a row with one question, and options to choose from or none."""
        video = self._video(fields)
        if video is None:
            raise RowError("no_video", f"there is no video in the row; its columns are {', '.join(map(str, fields))}")
        question, answer = self.get(fields, "question"), self.get(fields, "answer")
        if not isinstance(question, str):
            raise RowError("no_question", f"the question is {repr(question)[:80]}", video)
        if answer is None:
            raise RowError("no_answer", f"{question[:80]!r} has no answer", video)
        plain = _PLACEHOLDER.sub("\n", question).strip()
        options = read_options(self.get(fields, "options"), fields, video)
        if not options:
            if isinstance(answer, bool | list | dict | bytes):
                raise RowError("no_answer", f"the answer is no text but {repr(answer)[:80]}", video)
            return video, [self._question(fields, plain, str(answer).strip())], []
        letter = OPTION_NAMES[pick_option(options, answer, self.answers, video)]
        asked = self._question(fields, with_options(plain, options), letter)
        return video, [{**asked, "query": asked.get("query", plain)}], []

    def _video(self, fields: dict[str, Any]) -> str | None:
        video = self.get(fields, "video")
        if isinstance(video, list) and len(video) == 1:
            video = video[0]
        if isinstance(video, int) and not isinstance(video, bool):
            video = str(video)
        if video is not None and not isinstance(video, str):
            raise RowError("bad_row", f"video must be a path, got {repr(video)[:80]}")
        if video is None and fields.get("image") is not None:
            raise RowError("no_video", "the row is about a picture, not about a video")
        return video

    def _question(self, fields: dict[str, Any], question: str, answer: str) -> dict[str, Any]:
        asked: dict[str, Any] = {"question": question, "answer": answer}
        for name in ("query", "kind", "id"):
            value = self.get(fields, name)
            if value is not None:
                asked[name] = value if isinstance(value, str | int) else _as_text(value)
        evidence = self._evidence(fields)
        return {**asked, "evidence": evidence} if evidence else asked

    def _evidence(self, fields: dict[str, Any]) -> list[list[float]]:
        """The spans of a row, as JSON in one cell of a table too."""
        value = self.get(fields, "evidence")
        try:
            spans = parse_spans(parse_json(value.encode()) if isinstance(value, str) else value, "evidence")
        except (SkipSample, ValueError) as error:
            raise RowError("bad_evidence", str(error), self._video(fields)) from error
        return [list(span) for span in spans]


def _as_text(value: Any) -> str:
    """A value of a table, which may be one that JSON has no form for, such as a date."""
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)
