"""Relevance over time with keyframes and evidence: why an answer came out as it did."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from vilamp.report.charts import AMBER, BLUE, INK, MUTED, POINTS, RED, Chart, as_chart, drawing, new_figure
from vilamp.report.samples import Sample

LETTERS = 110
"""Of a title."""
LINE = 28
"""Pixels of a line of text."""
MIN_COLUMNS = 6
"""A picture with fewer keyframes shows them as large as one with so many."""
DARKEST = 190
"""Of 255: how much a patch of no weight is darkened."""


def timeline(sample: Sample, name: str) -> Chart:
    """The curve as an SVG; the PNG has the question, the answer and the keyframes too."""
    with drawing():
        figure = new_figure(10, 2.2)
        _draw(figure.subplots(), sample)
        chart = as_chart(figure, name, "Relevance over time, keyframes, and where the evidence lies")
        return replace(chart, png=_with_keyframes(chart.png, sample))


def _draw(axes: Any, sample: Sample) -> None:
    times, keyframes = np.array(sample.times), np.array(sample.keyframes, dtype=int)
    heights = np.zeros(len(times))
    if sample.relevance is not None:
        heights = np.array(sample.relevance)
        where = _extremes(heights)
        axes.plot(times[where], heights[where], color=BLUE, linewidth=1.1, label="relevance")
        axes.set_ylabel("cosine with the question")
    else:
        axes.set_yticks([])
    for i, (start, end) in enumerate(sample.evidence):
        axes.axvspan(start, end, color=AMBER, alpha=0.35, linewidth=0, label="evidence" if i == 0 else None)
    axes.plot(times[keyframes], heights[keyframes], "o", color=RED, markersize=5, label="keyframes")
    axes.set(xlabel="time (s)", xlim=(times[0], max(times[-1], times[0] + 1)))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, labelcolor=MUTED)


def _extremes(heights: np.ndarray) -> np.ndarray:
    """Indices of all values, or of the least and the greatest of each of many equal parts, so that no peak is lost."""
    if len(heights) <= POINTS:
        return np.arange(len(heights))
    parts = np.array_split(np.arange(len(heights)), POINTS // 2)
    return np.unique([part[pick(heights[part])] for part in parts for pick in (np.argmin, np.argmax)])


def _with_keyframes(curve: bytes, sample: Sample) -> bytes:
    """The picture of a curve with the question above and keyframes below it."""
    keyframes = [still for still in sample.stills if not still.merged]
    drawn = Image.open(io.BytesIO(curve))
    size = drawn.width // max(len(keyframes), MIN_COLUMNS)
    sheet = Image.new("RGB", (drawn.width, 2 * LINE + drawn.height + size), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(findfont("DejaVu Sans"), LINE // 2)
    verdict = "right" if sample.exact else f"wrong, it is: {sample.right_answer}"
    title = f"{sample.question}   →   {sample.answer or '(nothing)'}  ({verdict})"
    draw.text((LINE // 2, LINE // 4), shortened(title), INK, font)
    sheet.paste(drawn, (0, LINE))
    for column, still in enumerate(keyframes):
        left, top = column * size, LINE + drawn.height
        draw.text((left, top), f"{sample.times[still.frame]:.0f} s", MUTED, font)
        picture = Image.open(io.BytesIO(base64.b64decode(still.jpeg)))
        sheet.paste(picture.resize((size - 6, size * picture.height // picture.width - 6)), (left, top + LINE))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def shortened(text: str) -> str:
    """One line that fits above a picture, without what a font cannot draw."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= LETTERS else f"{line[: LETTERS - 1]}…"


def shade(weights: Sequence[Sequence[float]]) -> str:
    """A PNG in base64 to lay over a frame: the less a patch weighs beside the heaviest, the darker."""
    values = np.array(weights, dtype=np.float64)
    share = values / values.max() if values.max() > 0 else values
    pixels = np.zeros((*share.shape, 4), dtype=np.uint8)
    pixels[..., 3] = ((1 - share) * DARKEST).round()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def patches_looked_at(weights: Sequence[Sequence[float]]) -> float:
    """How many patches of equal weight would be as spread out: the inverse of the sum of squared shares."""
    values = np.array(weights, dtype=np.float64).ravel()
    shares = values / values.sum()
    return float(1 / np.square(shares).sum())
