"""Accuracy by depth and length: a table on the screen, and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from rich.console import Console
from rich.table import Table

from vilamp.report.charts import BLUE, INK, RED, as_png, drawing, new_figure

CELL = "accuracy/cell/"
COLOURS = LinearSegmentedColormap.from_list("accuracy", [RED, "#f4f1ea", BLUE])

Scores = Mapping[str, Mapping[str, float]]
"""Way of answering -> the figures of ``result.json``."""


def grid(figures: Mapping[str, float]) -> tuple[list[int], list[float], np.ndarray]:
    """Lengths ascending, depths ascending, and float64[depths, lengths]; NaN where there is no case."""
    cells = {name.removeprefix(CELL): value for name, value in figures.items() if name.startswith(CELL)}
    places = {(int(length), float(depth)): value for (length, _, depth), value in
              ((name.partition("/"), value) for name, value in cells.items())}  # fmt: skip
    lengths, depths = sorted({length for length, _ in places}), sorted({depth for _, depth in places})
    values = np.array([[places.get((length, depth), np.nan) for length in lengths] for depth in depths])
    return lengths, depths, values


def show(scores: Scores, folder: Path) -> None:
    """Print the tables, and write ``heatmap-<way>.png`` for each way of answering."""
    console = Console()
    for way, figures in scores.items():
        lengths, depths, values = grid(figures)
        if not lengths:
            continue
        table = Table("depth", *map(str, lengths), title=f"accuracy by depth and length ({way})")
        for depth, row in zip(depths, values, strict=True):
            table.add_row(f"{depth:g}", *(f"{value:.2f}" for value in row))
        table.add_section()
        table.add_row("all", *(f"{figures[f'accuracy/length/{length}']:.2f}" for length in lengths))
        console.print(table)
        file = folder / f"heatmap-{way}.png"
        file.write_bytes(draw(lengths, depths, values))
        console.print(f"{file}", soft_wrap=True)


def draw(lengths: list[int], depths: list[float], values: np.ndarray) -> bytes:
    """The picture as a PNG: a column for each length, a row for each depth.

    Args:
        lengths: in frames.
        depths: shares, the first at the top.
        values: float64[depths, lengths], 0 to 1.
    """
    with drawing():
        figure = new_figure(2.2 + 0.8 * max(len(lengths), 3), 1.4 + 0.5 * max(len(depths), 2))
        axes = figure.subplots()
        picture = axes.imshow(values, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
        axes.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
        axes.set(xlabel="frames", ylabel="depth of the needle", title="accuracy")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for (row, column), value in np.ndenumerate(values):
            colour = "white" if value < 0.2 or value > 0.8 else INK
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
        figure.colorbar(picture, ax=axes, ticks=[0, 0.5, 1]).outline.set_visible(False)
        return as_png(figure)
