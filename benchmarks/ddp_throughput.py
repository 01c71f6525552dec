"""What a second process costs: videos a second of each of two DDP processes, against one process alone.

    python benchmarks/ddp_throughput.py

Every process has one core to itself (``sched_setaffinity``), one thread, and decodes in place.  Both runs are ``train``
on the needle data, with the same number of videos for each process and step; the figure is the run's own
``throughput/videos_per_s`` over the number of processes, from the end of a step to the end of the next.  The two take
turns.  Needs Linux, two cores that nothing else uses, and makes the needle data if it is not there.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import Column, options, report

STEPS, REPEATS = 30, 3
QUICK_STEPS, QUICK_REPEATS = 2, 1
SETTINGS = ["logger=csv", "+trainer.limit_val_batches=0", "data.num_workers=0", "checkpoint.every_n_steps=null"]
IN_PLACE = ["data.decode_timeout=null", "data.decode_memory=null"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

COLUMNS = (
    Column("processes", "processes"),
    Column("videos_per_s", "videos/s of one process", ".2f"),
    Column("of_one", "of one alone", ".2f"),
)


def rank(arguments: Sequence[str]) -> int:
    """One process of a run, on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ.get("LOCAL_RANK", "0"))]})
    from vilamp.cli import app
    from vilamp.training.run import train

    return app.run(train, "train", arguments)


def videos_per_s(processes: int, steps: int, more: Sequence[str]) -> float:
    """What a run says, for each of its processes."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        strategy = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true"]
        several = strategy if processes > 1 else []
        run = [f"hydra.run.dir={folder}/run", f"trainer.max_steps={steps}", *SETTINGS, *IN_PLACE, *several, *more]
        command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--rank", *run]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT})
        metrics = json.loads(Path(folder, "run", "metrics.json").read_text())
    return float(metrics["throughput/videos_per_s"]) / processes


def main(argv: Sequence[str] | None = None, more: Sequence[str] = ()) -> None:
    """Measure and report; ``more`` are further settings of the runs."""
    wanted = options(str(__doc__), argv)
    steps, repeats = (QUICK_STEPS, QUICK_REPEATS) if wanted.quick else (STEPS, REPEATS)
    measured: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for processes, values in measured.items():
            values.append(videos_per_s(processes, steps, more))
    medians = {processes: statistics.median(values) for processes, values in measured.items()}
    rows = [
        {"processes": processes, "videos_per_s": value, "of_one": value / medians[1]}
        for processes, value in medians.items()
    ]
    report(f"throughput of training, {steps} steps, median of {repeats}", rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        sys.exit(rank(sys.argv[2:]))
    main()
