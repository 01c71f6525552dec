"""``vilamp compare``: training runs and evaluations side by side, with intervals and a paired test."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilamp.cli.app import report
from vilamp.errors import DataError

if TYPE_CHECKING:
    from vilamp.evaluation.compare import Pair, Run

_PIPED_WIDTH = 200
"""Columns where no terminal says how wide it is."""
_HIDDEN = ("low", "high", "low_by_videos", "high_by_videos")
"""Figures that stand in the column of an interval."""
_INTERVALS = {"95 % (questions)": ("low", "high"), "95 % (videos)": ("low_by_videos", "high_by_videos")}
_WHOLE = {"questions", "not_asked"}
_SHARES = {"accuracy", "m_avg", "keyframe_recall"}

_ABOUT = """\
Folders of training runs, of sweeps and of evaluations.  The interval over questions is Wilson's; the one over videos
takes into account that questions about one video go right and wrong together (bootstrap).  McNemar's exact test
compares each evaluation with the first of the same benchmark, over the questions that both have; a question that could
not be asked is wrong.  Settings are shown where they differ."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Print the tables, or with ``--json`` one JSON object; returns the exit code."""
    parser = argparse.ArgumentParser(prog=prog, description=_ABOUT)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a run, or of a sweep of runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    arguments = parser.parse_args(argv)
    try:
        from vilamp.evaluation.compare import differing_settings, pairs, read_runs

        runs = read_runs(arguments.folders)
    except DataError as error:
        return report(error)
    differing, tested = differing_settings(runs), pairs(runs)
    if arguments.json:
        rows = [
            {"name": run.name, "settings": {key: values[i] for key, values in differing.items()}, **run.figures}
            for i, run in enumerate(runs)
        ]
        print(json.dumps({"runs": rows, "pairs": [asdict(pair) for pair in tested]}, indent=2, default=str))
    else:
        _print(runs, differing, tested)
    return 0


def _print(runs: Sequence[Run], differing: dict[str, list[Any]], tested: Sequence[Pair]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    common = os.path.commonpath([Path(run.name).parent for run in runs])
    short = [run.name[len(common) :].lstrip(os.sep) for run in runs]
    names = [name for name in dict.fromkeys(name for run in runs for name in run.figures) if name not in _HIDDEN]
    intervals = {title: ends for title, ends in _INTERVALS.items() if any(ends[0] in run.figures for run in runs)}
    table = Table("run", *differing, box=box.SIMPLE_HEAD)
    for title in (names[0], *intervals, *names[1:]):
        table.add_column(title.replace("_", " "), justify="right")
    for i, run in enumerate(runs):
        first, *others = (_cell(name, run.figures) for name in names)
        ranges = [_range(run.figures, *ends) for ends in intervals.values()]
        settings = [Text(str(values[i])) for values in differing.values()]
        table.add_row(Text(short[i]), *settings, first, *ranges, *others)
    console.print(table)
    named = dict(zip((run.name for run in runs), short, strict=True))
    for pair in tested:
        console.print(
            f"{named[pair.second]} against {named[pair.first]}: of {pair.common} questions of both, {pair.only_second} "
            f"are right in the former alone, {pair.only_first} in the latter alone, p = {pair.p:.3g}",
            markup=False,
            highlight=False,
        )


def _cell(name: str, figures: dict[str, float]) -> str:
    value = figures.get(name)
    if value is None:
        return ""
    return f"{value:.0f}" if name in _WHOLE else f"{value:.3f}" if name in _SHARES else f"{value:.4g}"


def _range(figures: dict[str, float], low: str, high: str) -> str:
    return f"{figures[low]:.3f} - {figures[high]:.3f}" if low in figures else ""
