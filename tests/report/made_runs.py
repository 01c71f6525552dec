"""Folders as runs leave them, with what an attacker would write into a question."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from vilamp.report.samples import Cost, Sample, Samples, Still

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&amp; $x_1$ ' 何?"
FIGURES = {
    "val/accuracy": 0.75,
    "val/accuracy_before": 0.25,
    "val/accuracy/colour": 1.0,
    f"val/accuracy/{HOSTILE}": 0.5,
    "val/accuracy_by_depth/0.0-0.2": 0.5,
    "val/accuracy_by_depth/0.8-1.0": 1.0,
    "memory/peak_rss_gib": 0.5,
}
ROWS = [
    {"step": "0", "train/loss": "", "val/loss": "2.5", "val/accuracy": "0.25", "memory/peak_rss_gib": "0.4"},
    {"step": "1", "train/loss": "2.0", "val/loss": "", "val/accuracy": "", "memory/peak_rss_gib": "0.5"},
    {"step": "2", "train/loss": "1.5", "val/loss": "1.0", "val/accuracy": "0.75", "memory/peak_rss_gib": "0.5"},
]
SCORES = {
    "accuracy": 0.5,
    "accuracy_answered": 0.625,
    "accuracy/cell/1000/0": 0.25,
    "accuracy/cell/1000/1": 0.75,
    "accuracy/cell/10000/0": 1.0,
    "accuracy/cell/2000/1": 0.125,
    "accuracy/length/1000": 0.5,
    "accuracy/length/10000": 1.0,
    "accuracy/length/2000": 0.125,
    f"accuracy/kind/{HOSTILE}": 0.5,
}
"""Of a needle benchmark, in the order of the names, as a result has them; two of the six cells have no case."""


def jpeg(size: int = 32, seed: int = 0) -> str:
    """A picture of noise, which compresses worst, in base64."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


def sample(
    exact: bool = True, frames: int = 20, stills: int = 4, size: int = 32, relevance: bool = True, text: str = HOSTILE
) -> Sample:
    """One question; every second still is of a merged frame whose first patch has half of the weight."""
    weights = [[0.5, 0.5 / 3], [0.5 / 3, 0.5 / 3]]
    return Sample(
        key=f"v0/{text}",
        question=text,
        kind=text,
        answer=text,
        right_answer=text,
        exact=exact,
        evidence=[(2.0, 4.0)],
        times=[float(i) for i in range(frames)],
        relevance=[float(np.sin(i)) for i in range(frames)] if relevance else None,
        keyframes=list(range(0, stills, 2)),
        stills=[Still(i, jpeg(size, i), bool(i % 2), weights if i % 2 else None) for i in range(stills)],
    )


def write_run(folder: Path, samples: list[Sample] | None = None, ended: bool = True) -> Path:
    """The folder of a run that ended, or of one that was killed while it wrote."""
    folder.mkdir(exist_ok=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(ROWS[0]))
        table.writeheader()
        table.writerows(ROWS)
        file.write("" if ended else "3,1.2")
    (folder / "config.yaml").write_text(f"selector:\n  _target_: some.Uniform{HOSTILE}\n")
    skip = {"key": HOSTILE, "shard": "s", "reason": "decode", "detail": HOSTILE}
    (folder / "quarantine.jsonl").write_text(json.dumps(skip) + "\n" + ("" if ended else '{"key": "ha'))
    if ended:
        (folder / "metrics.json").write_text(json.dumps(FIGURES))
        shown = [sample(), sample(exact=False)] if samples is None else samples
        Samples(shown, [Cost(n, n / 10, 0.5, False) for n in (5, 10, 20)]).write(folder)
    return folder


def write_evaluation(folder: Path, ended: bool = True) -> Path:
    """The folder of an evaluation of four questions by two processes, or of one that was killed while it wrote.

    One question was missing for one process, and answered when it was gone on with; one cannot be decoded.
    """
    folder.mkdir(exist_ok=True)
    asked = {"reason": "", "detail": "", "text": f"\u2028{HOSTILE}", "seconds": 1.5}
    answers = [
        asked | {"key": "a", "right": {"generation": True, "likelihood": False}},
        asked | {"key": "b", "right": {"generation": True}},
        asked | {"key": "c", "right": {"generation": False, "likelihood": False}},
        {"key": HOSTILE, "right": {}, "reason": "decode", "detail": HOSTILE, "seconds": 0.25},
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in answers]
    (folder / "config.yaml").write_text("benchmark:\n  _target_: some.Needles\n")
    if ended:
        (folder / "answers.jsonl").write_text("".join(lines))
        result = {
            "headline": "accuracy",
            "scores": {"generation": SCORES, "likelihood": {"accuracy": 0.0, "accuracy/kind/place": 0.0}},
            "counts": {"questions": 4, "asked": 3},
            "sampling": {"fps": 1.0, "frames": {"least": 1000}, "visual_tokens": 1040.5},
            "memory": {"peak_rss_gib": 0.71},
            "seconds": 4.75,
            "notes": [HOSTILE],
        }
        (folder / "result.json").write_text(json.dumps(result))
    else:
        missing = {"key": "b", "right": {}, "reason": "missing_video", "detail": "b.mp4", "seconds": 0.0}
        (folder / "answers.jsonl").write_text("".join(lines[:2]))
        (folder / "answers.rank1.jsonl").write_text(f"{json.dumps(missing)}\n{lines[3]}{lines[2][:-20]}")
    return folder
