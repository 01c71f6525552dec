"""A sweep over selectors and mergers as a Markdown table.

    python scripts/summarise.py outputs/DAY/TIME                      # print it
    python scripts/summarise.py outputs/DAY/TIME --write README.md    # replace what stands between the markers

Several folders make one table, where a sweep ran in parts.

Everything is read from what the runs wrote: the figures from ``metrics.json``, the names from Hydra's record of its
choices, the command from Hydra's record of the sweep.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

MARKERS = ("<!-- table:needle -->", "<!-- /table:needle -->")
COLUMNS = {
    "accuracy": ("val/accuracy", "{:.3f}"),
    "of look-alikes": ("val/accuracy/look_alike", "{:.3f}"),
    "keyframe recall": ("val/keyframe_recall", "{:.3f}"),
    "visual tokens": ("visual_tokens", "{:.0f}"),
    "peak memory, GiB": ("memory/peak_rss_gib", "{:.2f}"),
}
"""Heading -> (name in metrics.json, format); a column that no run has is left out."""
ORDER = ("differential", "uniform", "random", "attention")
"""The names that come first, in this order; then the others by name, and ``none`` at the end."""


@dataclass(frozen=True)
class Result:
    """One run of the sweep."""

    selector: str
    merger: str
    metrics: dict[str, float]


def read_sweeps(folders: Sequence[Path]) -> list[Result]:
    """The runs of all sweeps, in the order of the table.

    Raises:
        ValueError: there is no run in one of them, or one run did not end.
    """
    runs = [run for folder in folders for run in _read_sweep(folder)]
    return sorted(runs, key=lambda run: (_rank(run.selector), _rank(run.merger)))


def _read_sweep(folder: Path) -> list[Result]:
    runs = sorted(path.parents[1] for path in folder.glob("*/.hydra/hydra.yaml"))
    if not runs:
        raise ValueError(f"{folder} holds no run: name the folder of a sweep (python train.py -m ...)")
    unfinished = [run.name for run in runs if not (run / "metrics.json").is_file()]
    if unfinished:
        raise ValueError(f"{folder}: no metrics.json in {', '.join(unfinished)}; these runs failed or still go on")
    return [_read_run(run) for run in runs]


def _read_run(run: Path) -> Result:
    choices = _load(run / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["choices"]
    return Result(choices["selector"], choices["merger"], json.loads((run / "metrics.json").read_text()))


def command(folder: Path) -> str:
    """The command that the sweep was started with."""
    overrides = _load(folder / "multirun.yaml")["hydra"]["overrides"]["task"]
    return " ".join(["python train.py -m", *overrides])


def render(results: Sequence[Result], started: Sequence[str]) -> str:
    """Accuracy as a grid, then every figure, in Markdown."""
    cells = {(result.selector, result.merger): result.metrics["val/accuracy"] for result in results}
    selectors = list(dict.fromkeys(result.selector for result in results))
    mergers = sorted({result.merger for result in results}, key=_rank)
    grid = [["accuracy", *(f"`merger={merger}`" for merger in mergers)]]
    for selector in selectors:
        values = [cells.get((selector, merger)) for merger in mergers]
        grid.append([f"`selector={selector}`", *("" if value is None else f"{value:.3f}" for value in values)])
    shown = {name: column for name, column in COLUMNS.items() if any(column[0] in run.metrics for run in results)}
    rows = [["selector", "merger", *shown]]
    for run in results:
        figures = [
            layout.format(run.metrics[metric]) if metric in run.metrics else "" for metric, layout in shown.values()
        ]
        rows.append([run.selector, run.merger, *figures])
    details = f"<details>\n<summary>All figures</summary>\n\n{_table(rows)}\n\n</details>"
    return f"{_table(grid)}\n\nMeasured with {' and '.join(f'`{line}`' for line in started)}.\n\n{details}"


def replace_between_markers(text: str, table: str) -> str:
    """``text`` with ``table`` between the markers.

    Raises:
        ValueError: the markers are not there exactly once each, in this order.
    """
    start, end = MARKERS
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"the file needs {start} and after it {end}, once each")
    before, _, rest = text.partition(start)
    return f"{before}{start}\n\n{table}\n\n{end}{rest.partition(end)[2]}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _rank(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER) + (name == "none"), name)


def _load(file: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(file), resolve=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="of a sweep, with a folder for each run"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write into this file, between the markers")
    arguments = parser.parse_args(argv)
    try:
        table = render(read_sweeps(arguments.folders), [command(folder) for folder in arguments.folders])
        if arguments.write is None:
            print(table)
        else:
            arguments.write.write_text(replace_between_markers(arguments.write.read_text(), table))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
