"""``val_answers.jsonl``: which validation questions a run has right, so that runs can be compared question by question.

Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

FILE = "val_answers.jsonl"


def write_right(folder: Path, right: Mapping[str, bool]) -> None:
    """Write a line for each question, in the order of the keys.

    Args:
        folder: of the run.
        right: key of a question -> whether it is right.
    """
    lines = [json.dumps({"key": key, "right": right[key]}, ensure_ascii=False) + "\n" for key in sorted(right)]
    (folder / FILE).write_text("".join(lines), "utf-8")


def read_right(folder: Path) -> dict[str, bool]:
    """What :func:`write_right` wrote; empty where there is no file, as in runs from before there was one.

    Raises:
        ValueError, KeyError, TypeError: a line is none of ours.
    """
    file = folder / FILE
    rows = map(json.loads, file.read_text("utf-8").splitlines()) if file.is_file() else ()
    return {row["key"]: row["right"] for row in rows}
