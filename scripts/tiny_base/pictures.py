"""What the tiny base is taught with: frames with and without needles, as a codec leaves them, and all questions."""

from __future__ import annotations

import io
import itertools

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vilamp.data.needle_scene import (
    COLOURS,
    KINDS,
    PLACES,
    SHAPES,
    SIZE,
    Needle,
    ask,
    draw_needle,
    new_haystack,
)

GRID = 8
"""Patches along one side of a frame."""


def all_questions() -> list[tuple[str, str, str]]:
    """(kind, named value, text) of every question there is, by asking until nothing new comes."""
    found: dict[tuple[str, str, str], None] = {}
    rng = np.random.default_rng(0)
    for shape, colour in zip(SHAPES, COLOURS, strict=True):
        for kind, place, _ in itertools.product(KINDS, PLACES, range(16)):
            text, _ = ask(Needle(shape, colour, place), kind, rng)
            found[kind, colour if kind == "shape" else shape, text] = None
    return list(found)


def compress(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frame after a lossy codec, since that is how frames of videos come."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=int(rng.integers(40, 96)))
    return np.asarray(Image.open(buffer))


def draw_frames(needles: list[Needle | None], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw each needle in a haystack, or a haystack alone for None.  Eight frames share a scene.

    Returns:
        uint8[n, SIZE, SIZE, 3]; float[n, GRID * GRID], the share of each patch that its needle covers.
    """
    frames, covered = [], []
    for i, needle in enumerate(needles):
        if i % 8 == 0:
            haystack = new_haystack(rng)
        plain = frame = haystack.frame(float(rng.uniform(0, 60)))
        if needle is not None:
            frame = draw_needle(frame, needle, tuple(rng.uniform(-5, 5, 2)), float(rng.uniform(0.8, 1.15)))
        drawn = (frame != plain).any(-1).reshape(GRID, SIZE // GRID, GRID, SIZE // GRID)
        frames.append(compress(frame, rng))
        covered.append(drawn.mean(axis=(1, 3), dtype=np.float32).ravel())
    return torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(covered))
