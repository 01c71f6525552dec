"""What ``vilamp compare`` shows, as Markdown in a page, with the command that the runs were started with.

    python scripts/summarise.py outputs/DAY/TIME                                     # print it
    python scripts/summarise.py outputs/DAY/TIME --write README.md --table needle    # between the markers table:needle

Several folders make one table, where a sweep ran in parts.  Where the runs differ in two settings, a grid of their
accuracy comes first.  The command is read from Hydra's record of the sweep, all else as ``vilamp compare`` does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vilamp.errors import DataError
from vilamp.evaluation.compare import Run, differing_settings, pairs, read_runs
from vilamp.evaluation.table import markdown, table


def command(folder: Path) -> str:
    """The command that a sweep was started with.

    Args:
        folder: of the sweep, or of one of its runs.

    Raises:
        ValueError: the folder is none of a sweep.
    """
    file = next((file for of in (folder, folder.parent) if (file := of / "multirun.yaml").is_file()), None)
    if file is None:
        raise ValueError(f"{folder} has no multirun.yaml: name the folder of a sweep (python train.py -m ...)")
    record = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert isinstance(record, dict)
    hydra = record["hydra"]
    return " ".join([f"python {hydra['job']['config_name']}.py -m", *hydra["overrides"]["task"]])


def render(runs: Sequence[Run], started: Sequence[str], against: str | None = None, kinds: bool = False) -> str:
    """The grid, if there is one, the commands, and every figure, in Markdown."""
    figures = markdown(table(runs, pairs(runs, against), kinds, named=False))
    measured = f"Measured with {' and '.join(f'`{line}`' for line in dict.fromkeys(started))}."
    settings = differing_settings(runs)
    if len(settings) != 2:
        return f"{figures}\n\n{measured}"
    details = f"<details markdown>\n<summary>All figures</summary>\n\n{figures}\n\n</details>"
    return f"{markdown(_grid(runs, settings))}\n\n{measured}\n\n{details}"


def _grid(runs: Sequence[Run], settings: dict[str, list[Any]]) -> list[list[str]]:
    """Accuracy: the first setting from row to row, the second from column to column."""
    down, across = ([f"`{key}={value}`" for value in values] for key, values in settings.items())
    places = zip(down, across, strict=True)
    cells = {place: f"{run.figures['accuracy']:.3f}" for place, run in zip(places, runs, strict=True)}
    columns = list(dict.fromkeys(across))
    rows = [[row, *(cells.get((row, column), "") for column in columns)] for row in dict.fromkeys(down)]
    return [["accuracy", *columns], *rows]


def replace_between_markers(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the markers of a table.

    Raises:
        ValueError: the markers are not there exactly once each, in this order.
    """
    start, end = f"<!-- table:{name} -->", f"<!-- /table:{name} -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"the file needs {start} and after it {end}, once each")
    before, _, rest = text.partition(start)
    return f"{before}{start}\n\n{content}\n\n{end}{rest.partition(end)[2]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a sweep, or of a run of one")
    parser.add_argument("--against", metavar="SETTING=VALUE", help="as for vilamp compare")
    parser.add_argument("--kinds", action="store_true", help="as for vilamp compare")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write into this file, between the markers")
    parser.add_argument("--table", default="needle", metavar="NAME", help="of the markers; needle unless given")
    arguments = parser.parse_args(argv)
    try:
        runs, started = read_runs(arguments.folders), [command(folder) for folder in arguments.folders]
        shown = render(runs, started, arguments.against, arguments.kinds)
        if arguments.write is None:
            print(shown)
        else:
            text = replace_between_markers(arguments.write.read_text("utf-8"), arguments.table, shown)
            arguments.write.write_text(text, "utf-8")
    except (DataError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
