"""Files of an evaluation that are there as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vilamp.evaluation.answers import FILE, Answer, line_of
from vilamp.training.checkpoints import write_whole


def merge(folder: Path, answers: Iterable[Answer]) -> None:
    """Leave one file with these answers in the folder, in their order."""
    write_whole(folder / FILE, lambda file: file.writelines(map(line_of, answers)))
    for path in folder.glob("answers.rank*.jsonl"):
        path.unlink()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))
