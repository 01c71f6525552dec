"""``vilamp compare``: training runs and evaluations side by side, with intervals and a paired test."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vilamp.cli.app import report
from vilamp.errors import DataError

if TYPE_CHECKING:
    from vilamp.evaluation.compare import Pair, Run

_PIPED_WIDTH = 200
"""Columns where no terminal says how wide it is."""

_ABOUT = """\
Folders of training runs, of sweeps and of evaluations.  Settings are shown where they differ.  The interval over
questions is Wilson's; the one over videos takes into account that questions about one video go right and wrong together
(bootstrap).  McNemar's exact test compares each run with the first over the same questions, or with the one that
--against names, over the questions that both have; a question that could not be asked is wrong.  Runs from before
answers were kept are not tested."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Print the tables, or with ``--json`` one JSON object; returns the exit code."""
    parser = argparse.ArgumentParser(prog=prog, description=_ABOUT)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a run, or of a sweep of runs")
    parser.add_argument(
        "--against", metavar="SETTING=VALUE", help="test each run against the one that differs from it in this alone"
    )
    parser.add_argument("--kinds", action="store_true", help="show the accuracy of each kind of question as well")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    form.add_argument("--markdown", action="store_true", help="print the table in Markdown, with p of the test in it")
    arguments = parser.parse_args(argv)
    try:
        from vilamp.evaluation.compare import differing_settings, pairs, read_runs
        from vilamp.evaluation.table import markdown, table

        runs = read_runs(arguments.folders)
        tested = pairs(runs, arguments.against)
    except DataError as error:
        return report(error)
    if arguments.json:
        differing = differing_settings(runs)
        rows = [
            {"name": run.name, "settings": {key: values[i] for key, values in differing.items()}, **run.figures}
            for i, run in enumerate(runs)
        ]
        print(json.dumps({"runs": rows, "pairs": [asdict(pair) for pair in tested]}, indent=2, default=str))
    elif arguments.markdown:
        print(markdown(table(runs, tested, arguments.kinds, named=False)))
    else:
        _print(runs, tested, arguments.kinds)
    return 0


def _print(runs: Sequence[Run], tested: Sequence[Pair], kinds: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vilamp.evaluation.compare import differing_settings
    from vilamp.evaluation.table import short_names, table

    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    headings, *rows = table(runs, tested, kinds)
    shown = Table(box=box.SIMPLE_HEAD)
    words = 1 + len(differing_settings(runs))  # the name and the settings, before the figures
    for number, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if number < words else "right")
    for row in rows:
        shown.add_row(*map(Text, row))
    console.print(shown)
    names = short_names(runs)
    for pair in tested:
        console.print(
            f"{names[pair.second]} against {names[pair.first]}: of {pair.common} questions of both, {pair.only_second} "
            f"are right in the former alone, {pair.only_first} in the latter alone, p = {pair.p:.3g}",
            markup=False,
            highlight=False,
        )
