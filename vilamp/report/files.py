"""JSON that a run or an evaluation wrote, perhaps until it was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vilamp.errors import DataError


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: there is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is no JSON ({error}); remove it and the report goes without") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds a {type(content).__name__} where there should be an object; remove it")
    return content


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines, without a last line that is only half there; none without a file.

    Raises:
        DataError: a line is no object.
    """
    if not file.is_file():
        return []
    content = file.read_bytes()
    rows = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}, line {number} is no JSON ({error}); remove the line") from error
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number} holds a {type(row).__name__}, no object; remove the line")
        rows.append(row)
    return rows
