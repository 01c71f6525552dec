"""Does the memory of a training process creep up?  300 steps on videos of varied length.

    python benchmarks/memory_creep.py

Trains ``model=tiny`` as a run does (frozen scorer and tower, AdamW over the rest) on videos of 16 to 256 frames, in
random order and with one to three questions each, and reads the resident set after every step.  The verdict compares
the last third of the steps with the middle third: memory creeps if the median grew by more than the noise, and at
least 2 MiB.  The noise is what the middle half of the middle third spans around its own straight line, so that a trend
does not excuse itself.  Exits with 1 if memory creeps.

The first third is not looked at: what a process keeps from its first steps is no trend.

On a CPU oneDNN keeps a compiled kernel for each shape that it has met, 1,024 at most, and videos of varied length have
many shapes.  Here it keeps none, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY is set.  Measured: without the cache 560 MiB in
the middle third and 559 in the last; with it 736 and 749 in 300 steps, which this check calls a creep, and the same 786
from step 180 to step 900.  So what grows is that cache, and it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from small_model import one_question, rolling_video, small_model

from vilamp.samples import Batch

STEPS, SHORTEST, LONGEST, KEYFRAMES = 300, 16, 256, 8
NO_KERNEL_CACHE = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0"}
FLOOR_MIB = 2.0
"""What a process may gain between two thirds of its steps without being suspected: one arena of the allocator."""


@dataclass(frozen=True)
class Verdict:
    """What the resident set did.

    Attributes:
        steps: how many there were.
        middle_mib: the median over the middle third, in MiB.
        last_mib: the median over the last third.
        noise_mib: growth that is put down to noise.
        creeps: the growth is more than that.
    """

    steps: int
    middle_mib: float
    last_mib: float
    noise_mib: float
    creeps: bool


def resident_mib() -> float:
    """The resident set of this process, in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def judge(resident: Sequence[float]) -> Verdict:
    """Tell a trend from noise, given the resident set in MiB after every step.

    Raises:
        ValueError: fewer than 9 steps.
    """
    third = len(resident) // 3
    if third < 3:
        raise ValueError(f"a trend needs at least 9 steps, got {len(resident)}")
    middle, last = resident[third : 2 * third], resident[2 * third :]
    line = statistics.linear_regression(range(len(middle)), middle)
    around = [reading - line.slope * step for step, reading in enumerate(middle)]
    # Quartiles, because the length of the last video moves single readings and says nothing about a trend.
    low, _, high = statistics.quantiles(around, n=4)
    before, after, noise = statistics.median(middle), statistics.median(last), max(FLOOR_MIB, high - low)
    return Verdict(len(resident), before, after, noise, after - before > noise)


def batch_of(lengths: random.Random, step: int, longest: int) -> Batch:
    """One video of random length with one to three questions."""
    video = rolling_video(lengths.randint(SHORTEST, longest))
    count = lengths.randint(1, 3)
    questions = [one_question(video, seed=3 * step + i).questions[0] for i in range(count)]
    return Batch([video], questions, [0] * count)


def train(steps: int, longest: int = LONGEST, after_step: Callable[[int], object] = lambda step: None) -> list[float]:
    """The resident set in MiB after each of so many steps.

    Args:
        steps: optimiser steps.
        longest: frames of the longest video.
        after_step: called before the reading, for tests that plant a leak.
    """
    model = small_model(f"num_keyframes={KEYFRAMES}")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    lengths, resident = random.Random(0), []
    for step in range(steps):
        optimizer.zero_grad()
        model(batch_of(lengths, step, longest)).loss.backward()
        optimizer.step()
        after_step(step)
        resident.append(resident_mib())
    return resident


def main(argv: Sequence[str] | None = None) -> int:
    """Print the verdict; returns 1 where memory creeps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--json", action="store_true", help="print the figures also as one JSON object, the last line")
    wanted = parser.parse_args(argv)
    resident = train(wanted.steps)
    verdict = judge(resident)
    tenth = max(1, wanted.steps // 10)
    print("resident MiB, median of every tenth of the steps:")
    print("  " + " ".join(f"{statistics.median(resident[i : i + tenth]):.0f}" for i in range(0, wanted.steps, tenth)))
    print(
        f"{verdict.steps} steps: {verdict.middle_mib:.1f} MiB in the middle third, {verdict.last_mib:.1f} in the last; "
        f"noise {verdict.noise_mib:.1f}: memory {'CREEPS' if verdict.creeps else 'does not creep'}"
    )
    if wanted.json:
        print(json.dumps({**asdict(verdict), "resident_mib": resident}))
    return int(verdict.creeps)


if __name__ == "__main__":
    if not os.environ.keys() >= NO_KERNEL_CACHE.keys():  # read once, when torch is imported
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **NO_KERNEL_CACHE})
    sys.exit(main())
