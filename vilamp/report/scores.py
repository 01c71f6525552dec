"""Charts of a benchmark's scores: the figures over all questions, those by group, and a heat map where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vilamp.report.charts import Chart, bars
from vilamp.report.heatmap import CELL, heatmap

GROUP = "accuracy/"
"""How the figures begin that belong to a group of questions; ``<grouping>/<group>`` follows."""

Scores = Mapping[str, Mapping[str, float]]
"""Way of answering -> name -> figure."""


def score_charts(scores: Scores) -> Iterator[Chart | None]:
    """All charts of the scores; ways of answering stand beside each other."""
    shares = {way: {name: one for name, one in figures.items() if 0 <= one <= 1} for way, figures in scores.items()}
    maps = [heatmap(figures, way) for way, figures in shares.items()]
    yield from maps
    over_all = {way: _without(figures, GROUP) for way, figures in shares.items()}
    yield bars(over_all, "scores", "Scores of the benchmark.", "share")
    in_groups = {way: _without(figures, CELL) if any(maps) else figures for way, figures in shares.items()}
    names = [name for figures in in_groups.values() for name in figures if name.startswith(GROUP)]
    for grouping in dict.fromkeys(name.split("/")[1] for name in names):
        of_it = {way: _below(figures, f"{GROUP}{grouping}/") for way, figures in in_groups.items()}
        yield bars(of_it, f"scores_by_{grouping}", f"Accuracy by {grouping}.")


def _without(figures: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not name.startswith(prefix)}


def _below(figures: Mapping[str, float], prefix: str) -> dict[str, float]:
    """The figures whose name begins so, without that; numbers ascend."""
    found = {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}
    try:
        return dict(sorted(found.items(), key=lambda one: float(one[0])))
    except ValueError:
        return found
