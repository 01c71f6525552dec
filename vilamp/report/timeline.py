"""Relevance over time with keyframes and evidence: why an answer came out as it did."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vilamp.report.charts import AMBER, BLUE, MUTED, POINTS, RED, Chart, as_chart, as_png, drawing, new_figure
from vilamp.report.samples import Sample

LETTERS = 110
"""Of a title."""
MIN_COLUMNS = 6
"""A picture with fewer keyframes shows them as large as one with so many."""
DARKEST = 190
"""Of 255: how much a patch of no weight is darkened."""


def timeline(sample: Sample, name: str) -> Chart:
    """The curve as an SVG; the PNG is :func:`timeline_figure`."""
    with drawing():
        figure = new_figure(10, 2.2)
        _draw(figure.subplots(), sample)
        chart = as_chart(figure, name, "Relevance over time, keyframes, and where the evidence lies")
        return replace(chart, png=as_png(timeline_figure(sample)))


def timeline_figure(sample: Sample) -> Figure:
    """The question with its answer, the curve, and keyframes below it; the first of its axes is time, in seconds."""
    with drawing():
        figure = new_figure(10, 3.8)
        curve, below = figure.subplots(2, height_ratios=[2.2, 1])
        _draw(curve, sample)
        verdict = {True: "  (right)", False: f"  (wrong, it is: {sample.right_answer})", None: ""}[sample.exact]
        title = f"{sample.question}   →   {sample.answer or '(nothing)'}{verdict}"
        figure.suptitle(shortened(title), x=0.01, horizontalalignment="left", fontsize=11)
        _draw_keyframes(below, sample)
        return figure


def _draw(axes: Axes, sample: Sample) -> None:
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


def _draw_keyframes(axes: Axes, sample: Sample) -> None:
    """One row of pictures, each with its time above; few are no larger than if they were some more."""
    axes.axis("off")
    stills = [still for still in sample.stills if not still.merged]
    if not stills:
        return
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(still.jpeg)))) for still in stills]
    height, width = (max(picture.shape[side] for picture in pictures) for side in (0, 1))
    step = width + width // 16
    row = np.full((height, step * max(len(stills), MIN_COLUMNS), 3), 255, dtype=np.uint8)
    for column, (still, picture) in enumerate(zip(stills, pictures, strict=True)):
        row[: picture.shape[0], column * step : column * step + picture.shape[1]] = picture
        axes.text(column * step, -height / 16, f"{sample.times[still.frame]:.0f} s", color=MUTED, fontsize=9)
    axes.imshow(row)
    axes.set_anchor("W")
    if len(sample.keyframes) > len(stills):
        remark = f"{len(stills)} of {len(sample.keyframes)} keyframes"
        axes.text(
            row.shape[1], height, remark, color=MUTED, fontsize=8, horizontalalignment="right", verticalalignment="top"
        )


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
