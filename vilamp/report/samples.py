"""``samples.json``: what a run leaves for its report of some questions, and what an answer takes of time and memory."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vilamp.disk import partial_of
from vilamp.errors import DataError

FILE = "samples.json"
KEYFRAMES = 12
"""Most keyframes of a question that are shown."""
PIXELS = 160
"""The longer side of a picture."""


@dataclass(frozen=True)
class Still:
    """One frame of a video, to be shown.

    Attributes:
        frame: its index.
        jpeg: the picture, in base64.
        merged: whether it is no keyframe.
        weights: rows of what each patch weighs in the frame's tokens, their mean where there are several; None for a
            keyframe, and where the merger does not tell or the patches are no square.
    """

    frame: int
    jpeg: str
    merged: bool
    weights: list[list[float]] | None = None


@dataclass(frozen=True)
class Sample:
    """A question about a video, and why its answer came out as it did.

    Attributes:
        key: of the question.
        question: as it was asked.
        kind: of question.
        answer: what the model said.
        right_answer: what it should have said.
        exact: whether that is right; None where nobody knows.
        evidence: spans in seconds.
        times: of all frames, in seconds.
        relevance: of all frames, None where the selector has none.
        keyframes: indices of all keyframes.
        stills: some keyframes and some merged frames, in temporal order.
    """

    key: str
    question: str
    kind: str
    answer: str
    right_answer: str
    exact: bool | None
    evidence: list[tuple[float, float]]
    times: list[float]
    relevance: list[float] | None
    keyframes: list[int]
    stills: list[Still]

    def in_evidence(self, frame: int) -> bool:
        """Whether the frame lies in a span of evidence."""
        return any(start <= self.times[frame] < end for start, end in self.evidence)


@dataclass(frozen=True)
class Cost:
    """What one answer took.

    Attributes:
        frames: of the video.
        seconds: from the frames to the answer's logits; decoding is no part.
        peak_gib: of memory: allocated on the GPU, or the resident set of the process where there is none.
        on_gpu: which of both.
    """

    frames: int
    seconds: float
    peak_gib: float
    on_gpu: bool


@dataclass(frozen=True)
class Samples:
    """The content of the file.

    Attributes:
        samples: questions that were looked at.
        costs: of an answer; an evaluation measures none.
        unseen: questions that were to be looked at, whose video could not be read once more.
    """

    samples: list[Sample] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    unseen: int = 0

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        partial = partial_of(folder / FILE)
        partial.write_text(json.dumps(asdict(self)) + "\n")
        partial.replace(folder / FILE)


def read_samples(folder: Path) -> Samples:
    """The file in a run's folder; nothing where there is none.

    Raises:
        DataError: it is not what :meth:`Samples.write` writes.
    """
    file = folder / FILE
    if not file.is_file():
        return Samples()
    try:
        content = json.loads(file.read_text())
        costs = [Cost(**row) for row in content["costs"]]
        return Samples([_sample(row) for row in content["samples"]], costs, int(content.get("unseen", 0)))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is none that a run writes ({error}); remove it and the report goes without") from error


def _sample(row: dict[str, Any]) -> Sample:
    stills = [Still(**still) for still in row.pop("stills")]
    return Sample(**row, stills=stills)


def spread(indices: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the indices, evenly spread, with the first and the last."""
    if len(indices) <= count:
        return list(indices)
    return [indices[round(i * (len(indices) - 1) / max(count - 1, 1))] for i in range(count)]


def jpeg(frame: np.ndarray) -> str:
    """uint8[H, W, 3] -> a small JPEG in base64."""
    picture = Image.fromarray(frame)
    picture.thumbnail((PIXELS, PIXELS))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()
