"""Haystacks and needles for the tiny model, so that VideoNIAH runs without a download.

A haystack is hours of drifting textures with a short event every half minute; a needle is a clip of the same with one
event, and a question about that.  Shapes and colours of the needles appear in no haystack, so that every needle fits
every haystack and no question has two answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vilamp.data.needle_scene import PLAIN, Look, ask
from vilamp.data.needle_video import (
    EVENT_SECONDS,
    Event,
    draw_crowd,
    draw_cuts,
    draw_frames,
    draw_passing,
    encode_mp4,
)
from vilamp.errors import ConfigError, OutputError

NATIVE_FPS = 2
"""Frames a second of the files."""
NEEDLE_SECONDS = (30, 60)
"""Shortest and longest needle clip."""
PAUSE_SECONDS = (15.0, 45.0)
"""Shortest and longest time between two events of a haystack."""
KINDS = ("colour", "shape", "place")

_COLOURS, _SHAPES = list(PLAIN.colours), list(PLAIN.shapes)
IN_HAYSTACKS = replace(PLAIN, colours={c: PLAIN.colours[c] for c in _COLOURS[::2]}, shapes=tuple(_SHAPES[::2]))
IN_NEEDLES = replace(PLAIN, colours={c: PLAIN.colours[c] for c in _COLOURS[1::2]}, shapes=tuple(_SHAPES[1::2]))
_HAYSTACK, _NEEDLE = range(2)

Told = Callable[[str], None]


def make_example(
    folder: Path, haystacks: int, seconds: int, needles: int, seed: int, told: Told = lambda _: None
) -> tuple[list[Path], Path]:
    """Write ``haystacks/*.mp4``, ``needles/*.mp4`` and ``needles.jsonl`` into a folder.

    Args:
        folder: made where it is not there.
        haystacks: how many.
        seconds: of each.
        needles: how many clips, with one question each; the kinds of question take turns.
        seed: fixes every byte, for the installed versions of NumPy, Pillow and PyAV.
        told: is told of every file.

    Returns:
        The haystacks, and the file of needles.

    Raises:
        ConfigError: a number below 1, or haystacks that are shorter than a needle.
        OutputError: the folder cannot be written.
    """
    if min(haystacks, needles) < 1 or seconds <= NEEDLE_SECONDS[1] or seed < 0:
        raise ConfigError(
            "--haystacks and --needles must be at least 1, the longest of --lengths more than "
            f"{NEEDLE_SECONDS[1]}, which a needle may have, --seed not negative; got "
            f"{haystacks}, {needles}, {seconds} and {seed}"
        )
    try:
        for name in ("haystacks", "needles"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        paths = [folder / "haystacks" / f"haystack-{number:02d}.mp4" for number in range(haystacks)]
        for number, path in enumerate(paths):
            rng = np.random.default_rng([seed, _HAYSTACK, number])
            _write(path, seconds, draw_crowd(seconds, PAUSE_SECONDS, (), rng, IN_HAYSTACKS), rng, IN_HAYSTACKS)
            told(str(path))
        rows = [_make_needle(folder, seed, number) for number in range(needles)]
        told(str(folder / "needles"))
        file = folder / "needles.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error}; give another --out") from error
    return paths, file


def _make_needle(folder: Path, seed: int, number: int) -> dict[str, object]:
    """Write a clip; returns its row."""
    rng = np.random.default_rng([seed, _NEEDLE, number])
    seconds = int(rng.integers(NEEDLE_SECONDS[0], NEEDLE_SECONDS[1] + 1))
    event = draw_passing(float(rng.uniform(0, seconds - EVENT_SECONDS[1])), rng, IN_NEEDLES)
    kind = KINDS[number % len(KINDS)]
    question, answer = ask(event.needle, kind, rng, IN_NEEDLES)
    name = f"needles/needle-{number:03d}.mp4"
    _write(folder / name, seconds, [event], rng, IN_NEEDLES)
    evidence = [[event.needle.start, event.needle.end]]
    return {"video": name, "question": question, "answer": answer, "kind": kind, "evidence": evidence}


def _write(path: Path, seconds: int, events: Sequence[Event], rng: np.random.Generator, look: Look) -> None:
    cuts = draw_cuts(seconds, rng)
    path.write_bytes(encode_mp4(draw_frames(seconds, NATIVE_FPS, cuts, events, rng, look), NATIVE_FPS))
