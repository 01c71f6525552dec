"""``vilamp report``: the report of a run or of an evaluation, made again from what lies in its folder, whether it
ended or was killed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vilamp.cli.app import report
from vilamp.errors import DataError, OutputError


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Make the reports of some runs, print where they are, and return the exit code."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run or an evaluation, as outputs/DAY/TIME"
    )
    arguments = parser.parse_args(argv)
    from vilamp.report.make import make_report

    try:
        for run in arguments.runs:
            print(make_report(run).file)
    except (DataError, OutputError) as error:
        return report(error)
    return 0
