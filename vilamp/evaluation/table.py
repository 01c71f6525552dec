"""Runs as the rows of a table, for the terminal and for Markdown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vilamp.evaluation.compare import KINDS, Pair, Run, differing_settings

INTERVALS = {"95 % (questions)": ("low", "high"), "95 % (videos)": ("low_by_videos", "high_by_videos")}
"""Column -> the figures that it shows."""
WHOLE = {"questions", "not_asked"}
SHARES = {"accuracy", "m_avg", "keyframe_recall"}
TITLES = {"memory_gib": "peak memory, GiB"}


def short_names(runs: Sequence[Run]) -> dict[str, str]:
    """Name of a run -> the same without the folders that all have in common."""
    common = os.path.commonpath([Path(run.name).parent for run in runs])
    return {run.name: run.name[len(common) :].lstrip(os.sep) for run in runs}


def table(runs: Sequence[Run], tested: Sequence[Pair], kinds: bool = False, named: bool = True) -> list[list[str]]:
    """The headings, and a row for each run: what differs in its settings, its figures, and p of the paired test.

    Args:
        runs: at least one.
        tested: of these runs.
        kinds: shows the accuracy of each kind of question as well.
        named: shows the runs' names even where the settings tell them apart.
    """
    names, settings = short_names(runs), differing_settings(runs)
    telling = list(zip(*settings.values(), strict=True)) or [()] * len(runs)
    named = named or len({str(values) for values in telling}) < len(runs)
    shown = dict.fromkeys(name for run in runs for name in run.figures)
    hidden = {end for ends in INTERVALS.values() for end in ends}
    first, *others = (name for name in shown if name not in hidden and (kinds or not name.startswith(KINDS)))
    intervals = {title: ends for title, ends in INTERVALS.items() if any(ends[0] in run.figures for run in runs)}
    p = {pair.second: "< 0.001" if pair.p < 0.001 else f"{pair.p:.3f}" for pair in tested}
    rows = [[*(["run"] if named else []), *settings, _title(first), *intervals, *map(_title, others)]]
    rows[0] += ["p"] if p else []
    for run, values in zip(runs, telling, strict=True):
        row = [names[run.name]] if named else []
        row += [str(value) for value in values]
        row += [_cell(first, run.figures), *(_range(run.figures, *ends) for ends in intervals.values())]
        row += [_cell(name, run.figures) for name in others]
        rows.append(row + ([p.get(run.name, "")] if p else []))
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows, of which the first are the headings, as a table in Markdown."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _title(name: str) -> str:
    return name if name.startswith(KINDS) else TITLES.get(name, name.replace("_", " "))


def _cell(name: str, figures: dict[str, float]) -> str:
    value = figures.get(name)
    if value is None:
        return ""
    share = name in SHARES or name.startswith(KINDS)
    return f"{value:.3f}" if share else f"{value:.0f}" if name in WHOLE or value >= 100 else f"{value:.3g}"


def _range(figures: dict[str, float], low: str, high: str) -> str:
    return f"{figures[low]:.3f} - {figures[high]:.3f}" if low in figures else ""
