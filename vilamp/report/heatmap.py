"""Accuracy by depth and length of a needle benchmark, as a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from vilamp.report.charts import BLUE, RED, Chart, as_chart, drawing, new_figure

CELL = "accuracy/cell/"
"""How the figures begin that belong to a cell; ``<length>/<depth>`` follows."""
COLOURS = LinearSegmentedColormap.from_list("accuracy", [RED, "#f4f1ea", BLUE])
ON_PALE, ON_DEEP = "#20242e", "#ffffff"
"""Of the letters: cells have the same colours on a dark page, so the letters in them have, too."""


def grid(figures: Mapping[str, float]) -> tuple[list[int], list[float], np.ndarray]:
    """Lengths ascending, depths ascending, and float64[depths, lengths]; NaN where there is no case."""
    found = {re.fullmatch(rf"{CELL}(\d+)/(\d[\d.e-]*)", name): value for name, value in figures.items()}
    places = {(int(cell[1]), float(cell[2])): value for cell, value in found.items() if cell}
    lengths, depths = sorted({length for length, _ in places}), sorted({depth for _, depth in places})
    values = np.array([[places.get((length, depth), np.nan) for length in lengths] for depth in depths])
    return lengths, depths, values


def heatmap(figures: Mapping[str, float], way: str) -> Chart | None:
    """A column for each length, a row for each depth; None where the figures have no cells.

    Args:
        figures: of one way of answering, as in ``result.json``.
        way: its name.
    """
    lengths, depths, values = grid(figures)
    if not lengths:
        return None
    with drawing():
        figure = new_figure(max(7, 2.2 + 0.8 * len(lengths)), 1.2 + 0.4 * max(len(depths), 2))
        axes = figure.subplots()
        picture = axes.imshow(values, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
        axes.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
        axes.set(xlabel="frames", ylabel="depth of the needle", title=f"accuracy ({way})")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                colour = ON_DEEP if value < 0.2 or value > 0.8 else ON_PALE
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
        figure.colorbar(picture, ax=axes, ticks=[0, 0.5, 1]).outline.set_visible(False)
        caption = (
            f"Accuracy by length of the video and depth of the needle, 0% is the start, answered by {way}. A cell "
            "without a number has no case."
        )
        return as_chart(figure, f"heatmap-{way}", caption)
