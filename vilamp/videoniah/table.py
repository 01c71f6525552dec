"""Accuracy by depth and length, as a table on the screen."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from vilamp.report.heatmap import grid

Scores = Mapping[str, Mapping[str, float]]
"""Way of answering -> the figures of ``result.json``."""


def show(scores: Scores) -> None:
    """Print a table for each way of answering."""
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
