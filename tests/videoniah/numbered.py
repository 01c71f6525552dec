"""Videos whose frames carry numbers: those of a haystack from 0 on, those of needle n from 500 + 20 n."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from vilamp.testing.barcodes import barcode, write_video

OPTIONS = ["a circle", "a square"]


def write_numbered(path: Path, first: int, frames: int) -> None:
    """A video at two frames a second whose sampled frame k, at one a second, shows ``first + k``."""

    def draw(number: int, width: int, height: int) -> np.ndarray:
        return barcode(first + number // 2, width, height)

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_video(list(range(2 * frames)), Fraction(1, 2), draw=draw))


def write_videos(folder: Path, haystacks: int = 1, frames: int = 60, needles: int = 3) -> list[Path]:
    """Haystacks, needles and ``needles.jsonl``; needle n has 3 + n frames.  Returns the haystacks."""
    paths = [folder / f"hay/{number}.mp4" for number in range(haystacks)]
    for path in paths:
        write_numbered(path, 0, frames)
    rows = []
    for number in range(needles):
        write_numbered(folder / f"clip/{number}.mp4", 500 + 20 * number, 3 + number)
        row = {"id": f"n{number}", "video": f"clip/{number}.mp4", "question": f"What shape is number {number}?"}
        asked = {"answer": "red"} if number % 2 else {"answer": "B", "options": OPTIONS}
        rows.append(row | asked | {"evidence": [[1.0, 2.0]], "kind": "shape"})
    (folder / "needles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths
