"""Reads official files strictly: what is missing in them is an error that says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vilamp.benchmark import VideoFile
from vilamp.data.packing.records import read_records
from vilamp.errors import DataError

log = logging.getLogger(__name__)

Fields = dict[str, Any]
Kinds = Mapping[str, type | tuple[type, ...]]
NUMBER = (int, float)
SHOWN = 3
"""Of what is wrong, so many examples are told."""


def read_rows(path: Path, kinds: Kinds, get: str) -> list[Fields]:
    """The rows of a file (JSON, JSON lines, CSV or parquet, by its suffix).

    Args:
        path: the file.
        kinds: field -> the type that it must have; other fields are left alone.
        get: where the file comes from, for messages.

    Raises:
        DataError: no such file, a row that is none, or a field that is missing or of another type.
    """
    if not path.is_file():
        raise DataError(f"there is no {path}; {get}")
    records = list(read_records(path, path.name))
    problems = [f"{record.source}: {problem}" for record in records for problem in _problems(record, kinds)]
    refuse(path, problems, get)
    if not records:
        raise DataError(f"{path} is empty; {get}")
    return [record.fields for record in records if record.fields is not None]


def _problems(record: Any, kinds: Kinds) -> list[str]:
    if record.fields is None:
        return [record.problem]
    missing = [name for name in kinds if record.fields.get(name) is None]
    if missing:
        return [f"no {', '.join(missing)}; there is {', '.join(map(str, record.fields)) or 'nothing'}"]
    wrong = [name for name, kind in kinds.items() if not _is_a(record.fields[name], kind)]
    return [f"{name} is {repr(record.fields[name])[:60]}" for name in wrong]


def _is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def refuse(path: Path, problems: Sequence[str], get: str, verdict: str = "is not as published") -> None:
    """Raise DataError that tells the first problems and how many there are; do nothing where there is none."""
    if problems:
        more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
        raise DataError(f"{path} {verdict}: {'; '.join(problems[:SHOWN])}{more}; {get}")


def require_count(what: str, found: int, published: int, partial: bool, notes: list[str]) -> None:
    """Raise DataError unless all published questions are there; with ``partial`` add a note that they are not."""
    if found == published:
        return
    if not partial:
        raise DataError(
            f"{what}: {found} of {published} questions are there. Get the whole file, or set benchmark.partial=true: "
            "the result then says that it is about a part"
        )
    notes.append(f"{what}: {found} questions, {published} are published; not comparable with scores on all of them")


def find_video(folder: Path, name: str, suffixes: Sequence[str] = ("",)) -> VideoFile:
    """The first file ``folder/name<suffix>`` that is there, the first of all where none is."""
    candidates = [VideoFile(folder / f"{name}{suffix}") for suffix in suffixes]
    return next((file for file in candidates if file.is_there), candidates[0])


def text_list(value: Any) -> tuple[str, ...] | None:
    """The list as texts, None where it is no list of texts that say something."""
    if isinstance(value, list) and value and all(isinstance(text, str) and text.strip() for text in value):
        return tuple(value)
    return None
