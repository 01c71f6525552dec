"""A few frames of a sample, in a terminal or in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.color import Color
from rich.style import Style
from rich.text import Text

from vilamp.data.annotations import MAX_BYTES, parse_annotation
from vilamp.data.shard_sample import ShardSample

if TYPE_CHECKING:
    from vilamp.data.decode import VideoReader  # imports torch

_LINE = 16
"""Pixels of a line of text in a picture."""


def frames_of(sample: ShardSample, reader: VideoReader) -> np.ndarray | None:
    """The frames that the reader is set to: uint8[n, size, size, 3]; None where there is no video.

    Raises:
        SkipSample: the sample cannot be used.
    """
    extension = sample.video(parse_annotation(sample.read("json", MAX_BYTES)))
    if extension is None:
        return None
    return reader.read(sample.source(extension, reader.spool), sample.key, sample.shard).frames[:].numpy()


def half_blocks(frames: np.ndarray) -> Text:
    """Frames beside each other for a terminal, two pixels in a character: uint8[n, H, W, 3], H even."""
    text = Text()
    for top in range(0, frames.shape[1], 2):
        for number, frame in enumerate(frames):
            if number:
                text.append(" ")
            for upper, lower in zip(frame[top], frame[top + 1], strict=True):
                text.append(
                    "▀", Style(color=Color.from_rgb(*map(int, upper)), bgcolor=Color.from_rgb(*map(int, lower)))
                )
        text.append("\n")
    return text


def _colour(pixel: np.ndarray) -> Color:
    return Color.from_rgb(*pixel.tolist())


def contact_sheet(rows: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """One row for each (title, frames uint8[n, S, S, 3]), the title above the frames.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("there are no frames to show")
    size = rows[0][1].shape[1]
    height = size + _LINE
    sheet = Image.new("RGB", (max(len(frames) for _, frames in rows) * size, len(rows) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for i, (title, frames) in enumerate(rows):
        draw.text((2, i * height + 2), title, "black", font)
        for j, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame), (j * size, i * height + _LINE))
    return sheet
