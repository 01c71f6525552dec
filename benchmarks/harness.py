"""What the benchmarks share: ways that take turns, memory in fresh processes, and one form of report.

A benchmark lists ways to do the same thing.  Seconds are the median of calls that take turns in one process, so that a
disturbance meets all of them, in an order drawn anew for every round, since a call finds in the cache what the one
before it left there.  Memory is what the resident set grows by, at its peak, during one call in a process of
its own: the script is started again with ``--grow`` and the names of the way and the point, and prints the MiB.

    python benchmarks/selection.py              a table
    python benchmarks/selection.py --json       the same figures once more, as one JSON object on the last line
    python benchmarks/selection.py --quick      small sizes: shows that it runs, its figures mean nothing
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from vilamp.training.memory import peak_rss_gib, reset_peak_rss

Row = Mapping[str, str | int | float]
"""The figures of one point, as they go into the JSON: plain seconds, MiB and ratios under names that say which."""

HONEST_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0"}
"""Makes glibc give memory back when it is freed, so that a call cannot hide in what was used before it."""

PATIENCE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}
"""Lets threads that wait for each other spin for a moment, and then sleep.

By default they spin for long.  Where other programs want the cores too, the one that spins keeps the one that it waits
for from running, every small operation takes 8 ms, and what is measured is the scheduler.  Where they sleep at once,
every small operation waits for a thread to wake, which takes longer than many of them.
"""

TABLE_WIDTH = 160
"""Characters of a table that does not go to a terminal."""


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        key: which figure of a row.
        header: what stands above it.
        form: how the figure is written, as in ``format``; ``scale`` times the figure is what is written.
        scale: for example 1e3 where the row has seconds and the table milliseconds.
    """

    key: str
    header: str
    form: str = ""
    scale: float | None = None

    def show(self, row: Row) -> str:
        """The cell of a row."""
        value = row[self.key]
        if self.scale is not None and not isinstance(value, str):
            value *= self.scale
        return format(value, self.form)


def options(
    description: str, argv: Sequence[str] | None = None, parents: Sequence[argparse.ArgumentParser] = ()
) -> argparse.Namespace:
    """The command line that all benchmarks have: ``json`` and ``quick``, both bool, and ``grow``, list[str] or None.

    ``parents`` are argparse's, for what only one benchmark has.

    Without ``argv`` it is the command line of this process, which then begins anew with :data:`PATIENCE`, unless the
    environment sets any of that: OpenMP reads it only once, when torch is imported.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0], parents=list(parents))
    parser.add_argument("--json", action="store_true", help="print the figures also as one JSON object, the last line")
    parser.add_argument("--quick", action="store_true", help="small sizes only, to see that it runs")
    parser.add_argument("--grow", nargs="+", metavar="NAME", help=argparse.SUPPRESS)
    wanted = parser.parse_args(argv)
    if argv is None and not os.environ.keys() & PATIENCE.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **PATIENCE})
    return wanted


def alternate(
    ways: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] | None = None
) -> dict[str, float]:
    """The median seconds of each way, after one call of each that does not count; ``clock`` is that of the wall."""
    now = clock or time.perf_counter
    times: dict[str, list[float]] = {way: [] for way in ways}
    for run in ways.values():
        run()
    order, draw = list(ways), random.Random(0)
    for _ in range(repeats):
        draw.shuffle(order)
        for way in order:
            start = now()
            ways[way]()
            times[way].append(now() - start)
    return {way: statistics.median(values) for way, values in times.items()}


def growth_mib(run: Callable[[], object]) -> float:
    """MiB by which the resident set of this process grows in one call, at its peak.

    Run something small of the same kind before, which loads what torch loads at the first use.

    Raises:
        RuntimeError: this system does not let a process set its peak back (only Linux does).
    """
    if not reset_peak_rss():
        raise RuntimeError("the peak of the resident set cannot be set back here: memory is measured on Linux only")
    before = peak_rss_gib()
    result = run()
    grew = (peak_rss_gib() - before) * 1024
    del result  # was part of what the call needs
    return grew


def extra_mib(script: str | Path, *names: str | int) -> float:
    """What :func:`growth_mib` gives in a fresh process: the last line of ``script --grow NAME...``."""
    command = [sys.executable, str(script), "--grow", *map(str, names)]
    environment = {**os.environ, **HONEST_MALLOC}
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return float(child.stdout.splitlines()[-1])


def report(title: str, rows: Sequence[Row], columns: Sequence[Column], as_json: bool) -> None:
    """Print the table, and with ``as_json`` the rows and the machine as one JSON object on the last line."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    table = Table(title=f"{title}; {torch.get_num_threads()} thread(s)")
    for column in columns:
        table.add_column(column.header, justify="left" if isinstance(rows[0][column.key], str) else "right")
    for row in rows:
        table.add_row(*(column.show(row) for column in columns))
    console.print(table)
    if as_json:
        machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "processor": platform.machine()}
        print(json.dumps({"title": title, **machine, "rows": [dict(row) for row in rows]}))
