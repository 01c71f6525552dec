"""Subtitles: two file formats, and which cues the authors of a benchmark show for the sampled frames."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vilamp.benchmark import Cue
from vilamp.errors import DataError

_TIME = r"(\d+):(\d\d):(\d\d)[.,](\d{1,3})"
_SPAN = re.compile(rf"{_TIME}\s*-->\s*{_TIME}")
_CLOCK = re.compile(_TIME)
_TAG = re.compile(r"<[^>]*>|\{\\[^}]*\}")


def read_srt(path: Path) -> tuple[Cue, ...]:
    """The cues of an SRT file, without mark-up; cues without a text are left out.

    Raises:
        DataError: there is text in the file and no cue.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    spans = list(_SPAN.finditer(text))
    if text.strip() and not spans:
        raise DataError(f"{path} is no SRT file: it has no line such as 00:00:01,000 --> 00:00:02,000")
    cues = []
    for span, following in zip(spans, [*spans[1:], None], strict=True):
        body = text[span.end() : following.start() if following else len(text)].strip("\n").splitlines()
        if following and body and body[-1].strip().isdigit():  # the number of the next cue
            body = body[:-1]
        said = " ".join(_TAG.sub("", line).strip() for line in body).strip()
        if said:
            cues.append(Cue(_seconds(span.groups()[:4]), _seconds(span.groups()[4:]), said))
    return tuple(cues)


def _seconds(parts: Sequence[str]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def read_longvideobench(path: Path, starting: float, duration: float) -> tuple[Cue, ...]:
    """The cues of one of LongVideoBench's subtitle files, in seconds of the clip.

    Its rows have one of two shapes: ``timestamp`` [start, end] with ``text``, or ``start`` and ``end`` as clock times
    with ``line``.  They count from the beginning of the source video.  An end that is null is ``duration``, as the
    authors' loader has it: of the clip, before ``starting`` is subtracted.

    Args:
        path: the file.
        starting: where the clip begins in the source video, in seconds.
        duration: of the clip, in seconds.

    Raises:
        DataError: no JSON, or a row of neither shape.
    """
    try:
        rows = json.loads(path.read_bytes())
        return tuple(_longvideobench_cue(row, starting, duration) for row in rows)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is no subtitle file of LongVideoBench: {type(error).__name__}: {error}") from error


def _longvideobench_cue(row: dict[str, Any], starting: float, duration: float) -> Cue:
    if "timestamp" in row:
        start, end = row["timestamp"]
        return Cue(float(start) - starting, float(duration if end is None else end) - starting, row["text"].strip())
    start, end = (_clock(row[name]) for name in ("start", "end"))
    return Cue(start - starting, end - starting, row["line"].strip())


def _clock(text: str) -> float:
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no time such as 00:00:01.000")
    return _seconds(found.groups())


def shown_at(cues: Sequence[Cue], times: Sequence[float]) -> list[Cue]:
    """The cues that are on screen at one of the times (ascending), each once: start <= time < end."""
    return [cue for cue in cues if bisect.bisect_left(times, cue.start) < bisect.bisect_left(times, cue.end)]


def around(cues: Sequence[Cue], times: Sequence[float]) -> list[Cue]:
    """The cues in whose inside one of the times (ascending) lies, by LongVideoBench's rule.

    A cue shorter than a second is taken for one of a second around its middle.
    """
    kept = []
    for cue in cues:
        middle, half = (cue.start + cue.end) / 2, max(cue.end - cue.start, 1.0) / 2
        if bisect.bisect_right(times, middle - half) < bisect.bisect_left(times, middle + half):
            kept.append(cue)
    return sorted(kept, key=lambda cue: cue.start + cue.end)
