"""What W&B costs a run, in health and in trouble: seconds a step, over those of a run with ``metrics.csv`` alone.

    python benchmarks/logging_cost.py            a table
    python benchmarks/logging_cost.py --json     the same figures once more, as one JSON object on the last line
    python benchmarks/logging_cost.py --quick    few steps: shows that it runs, its figures mean nothing
    python benchmarks/logging_cost.py paths.data_dir=FOLDER     settings for all runs

Each case is ``train`` in a process of its own, with its own W&B, on the same batches of the needle data (made if it is
not there), and logs every step.  A step is one video of 64 frames: the shorter steps are, the more logging weighs.  The
cases take turns of a few steps, in an order drawn anew for every round, while the others wait; so whatever else the
machine does meets all alike.  The first round does not count, and trouble begins after it.
A ratio is the median over the rounds, that of seconds with its 95 % interval; CPU time is that of all threads of the
run, and W&B's own process is told beside it.  Needs Linux.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from harness import Column, Row, options, report

import vilamp.training.run as training
from vilamp.config import compose
from vilamp.samples import Batch
from vilamp.training import loggers
from vilamp.training.module import VideoQA

TURN, ROUNDS = 2, 41
QUICK_TURN, QUICK_ROUNDS = 1, 3
DELAY_S, TIMEOUT_S = 30.0, 5.0
"""Of every call of a slow W&B, and ``logger.timeout``."""
SETTINGS = ["+trainer.limit_val_batches=0", "trainer.max_epochs=-1", "checkpoint.every_n_steps=null", "report=false"]
SHORT = ["data.batch_size=1", "data.max_frames=64"]
IN_PLACE = ["data.num_workers=0", "data.decode_timeout=null", "data.decode_memory=null"]
"""Nothing but the run itself and W&B takes time."""
NOWHERE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}

COLUMNS = (
    Column("case", "W&B"),
    Column("step_s", "step, ms", ".1f", scale=1e3),
    Column("ratio", "over csv", ".3f"),
    Column("low", "from", ".3f"),
    Column("high", "to", ".3f"),
    Column("cpu_ratio", "CPU over csv", ".3f"),
    Column("wandb_cpu_s", "W&B's CPU a step, ms", ".1f", scale=1e3),
    Column("begin_s", "to begin, s", ".1f"),
    Column("end_s", "to end, s", ".1f"),
    Column("steps", "steps"),
    Column("logged", "in metrics.csv"),
    Column("told", "messages"),
)


def signalled(number: signal.Signals) -> None:
    """Send it to W&B's processes, the only children that such a run has."""
    others = psutil.Process().children(recursive=True)
    for process in others:
        process.send_signal(number)
    if number == signal.SIGKILL:
        psutil.wait_procs(others)


def slowed(run: Any) -> None:
    """Make each call of a W&B run that logs take longer."""
    log = run.log

    def later(*given: Any, **named: Any) -> None:
        time.sleep(DELAY_S)
        log(*given, **named)

    run.log = later


@dataclass(frozen=True)
class Case:
    """What happens to W&B.

    Attributes:
        settings: of the run.
        environment: of its process.
        opened: done to W&B's run when it is there.
        trouble: done after the first turn.
    """

    settings: Sequence[str] = ("logger=wandb", f"logger.timeout={TIMEOUT_S}")
    environment: dict[str, str] = field(default_factory=dict)
    opened: Callable[[Any], None] = lambda run: None
    trouble: Callable[[], None] = lambda: None


STARTER = multiprocessing.get_context("forkserver")
STARTER.set_forkserver_preload([training.__name__])  # which takes seconds, once; W&B is imported by each run itself

ALONE = "none"
CASES = {
    ALONE: Case(settings=["logger=csv"]),
    "offline": Case(),
    "refused": Case(settings=[*Case.settings, "logger.mode=online"], environment=NOWHERE),
    "slow": Case(opened=slowed),
    "stopped": Case(trouble=partial(signalled, signal.SIGSTOP)),
    "dead": Case(trouble=partial(signalled, signal.SIGKILL)),
}


class Turns:
    """The end of a run: tells what a turn took, and waits for the next.

    Args:
        other: gets what each turn took on all :func:`clocks`, None before the first; what it sends begins the next.
        trouble: done before the second turn.
    """

    def __init__(self, other: Connection, trouble: Callable[[], None]) -> None:
        self.other, self.trouble = other, trouble
        self.begun: list[tuple[float, ...]] = []

    def next(self) -> None:
        """Hand over, and return when it is this run's turn again."""
        now = clocks()
        self.other.send([end - begin for end, begin in zip(now, self.begun[-1], strict=True)] if self.begun else None)
        self.other.recv()
        if len(self.begun) == 1:
            self.trouble()
        self.begun.append(clocks())


def clocks() -> tuple[float, float, float]:
    """Seconds, CPU seconds of all threads of this process, and those of W&B's processes."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return time.perf_counter(), time.process_time(), sum(each.user + each.system for each in times)


def one_run(name: str, overrides: Sequence[str], turn: int, folder: Path, other: Connection) -> None:
    """The process of a case: ``train``, in turns of so many steps; at the end it sends what else there is to tell."""
    case = CASES[name]
    with (folder / "screen.log").open("wb") as screen:
        os.dup2(screen.fileno(), 1)
        os.dup2(screen.fileno(), 2)
    os.environ.update(case.environment)
    turns = Turns(other, case.trouble)
    waits = {"begin_s": 0.0, "end_s": 0.0}

    class TakingTurns(VideoQA):
        def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
            if self.global_step % turn == 0:
                turns.next()

        def on_train_end(self) -> None:
            turns.next()

    def opened(open_run: Callable[..., Any], *given: Any) -> Any:
        start = time.perf_counter()
        run = open_run(*given)
        waits["begin_s"] = time.perf_counter() - start
        case.opened(run)
        return run

    class Timed(loggers.PatientWandbLogger):
        def end(self, exit_code: int) -> None:
            start = time.perf_counter()
            super().end(exit_code)
            waits["end_s"] = time.perf_counter() - start

    training.VideoQA = TakingTurns  # type: ignore[attr-defined]
    loggers._wandb_run = partial(opened, loggers._wandb_run)
    loggers.PatientWandbLogger = Timed  # type: ignore[misc]
    training.train(
        compose("train", [*SETTINGS, *SHORT, *IN_PLACE, *case.settings, f"paths.output_dir={folder}", *overrides])
    )
    other.send(waits)


class Run:
    """A case under way, as the process sees it that gives the turns."""

    def __init__(self, name: str, overrides: Sequence[str], turn: int, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.spent: list[tuple[float, float, float]] = []
        folder.mkdir()
        self.turns, other = multiprocessing.Pipe()
        self.process = STARTER.Process(target=one_run, args=(name, overrides, turn, folder, other))
        self.process.start()
        other.close()
        self._told()

    def take_turn(self) -> None:
        """Let it make its steps."""
        self.turns.send(None)
        self.spent.append(self._told())

    def finish(self) -> dict[str, int | float]:
        """Let it end; what it says, and what it left."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.turns.send(None)
        waits = self._told()
        self.process.join()
        for child in children:
            if child.is_running():  # it was stopped
                child.kill()
        with (self.folder / "metrics.csv").open(newline="") as lines:
            logged = len({row["step"] for row in csv.DictReader(lines) if row["train/loss"]})
        screen = (self.folder / "screen.log").read_text()
        if self.process.exitcode or "Traceback" in screen:
            raise RuntimeError(f"{self.name} has failed:\n{screen}")
        return {**waits, "logged": logged, "told": sum("W&B" in line for line in screen.splitlines())}

    def _told(self) -> Any:
        try:
            return self.turns.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"{self.name} has ended:\n{(self.folder / 'screen.log').read_text()}") from None


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and its 95 % interval by the signs of the differences, which asks nothing of the noise."""
    in_order, count = sorted(values), len(values)
    before = max(math.floor(count / 2 - 0.98 * math.sqrt(count)), 0)
    return statistics.median(in_order), in_order[before], in_order[-1 - before]


def measure(names: Sequence[str], overrides: Sequence[str], turn: int, rounds: int, folder: Path) -> list[Row]:
    """A row for each case; the first is what the others are compared with.

    Raises:
        RuntimeError: a run has failed.
    """
    last = [*overrides, f"trainer.max_steps={turn * rounds}"]
    runs = [Run(name, last, turn, folder / name) for name in names]
    order, draw = list(runs), random.Random(0)
    for _ in range(rounds):
        draw.shuffle(order)
        for run in order:
            run.take_turn()
    alone = runs[0].spent[1:]
    rows: list[Row] = []
    for run in runs:
        spent = run.spent[1:]
        seconds, cpu = ([own[i] / other[i] for own, other in zip(spent, alone, strict=True)] for i in (0, 1))
        ratio, low, high = middle(seconds)
        rows.append(
            {
                "case": run.name,
                "step_s": statistics.median(wall for wall, _, _ in spent) / turn,
                "ratio": ratio,
                "low": low,
                "high": high,
                "cpu_ratio": statistics.median(cpu),
                "wandb_cpu_s": statistics.mean(others for _, _, others in spent) / turn,
                "steps": turn * rounds,
                **run.finish(),
            }
        )
    return rows


def main(argv: Sequence[str] | None = None, names: Sequence[str] = tuple(CASES)) -> None:
    """Measure and report."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("overrides", nargs="*", help="settings of all runs")
    wanted = options(str(__doc__), argv, parents=[own])
    turn, rounds = (QUICK_TURN, QUICK_ROUNDS) if wanted.quick else (TURN, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(names, wanted.overrides, turn, rounds, Path(folder))
    title = f"Training with metrics.csv alone and with W&B, {rounds - 1} turns of {turn} steps"
    report(title, rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
