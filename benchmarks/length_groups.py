"""How many frames a step waits for and pads, with training videos shuffled and grouped by length.

    python benchmarks/length_groups.py

Nothing is trained: the batches of three epochs are counted.  The lengths are drawn: evenly from 64 to 256 frames, as
those of the needle data are, or log-normal with a median of 90, a sigma of 1 and at most 600, as where most videos are
short and some are long.

A batch is padded to its longest video (by the language model, in tokens, of which a longer video has more), and in a
step every process waits for the one that has most frames, as if nothing but frames took time.  Both are over the frames
that there are, so that 1 is the least.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from harness import Column, Row, options, report

from vilamp.data.order import EpochBatches, LengthGroups

MAX_FRAMES = 600
SHAPES = ((4, 1), (4, 2), (4, 8), (1, 32))
"""Videos of a process in a step, and processes."""
SIZE, QUICK_SIZE = 20_000, 400
LEAST_GROUP = 32
EPOCHS = 3

COLUMNS = (
    Column("lengths", "lengths"),
    Column("batch_size", "videos of a process"),
    Column("processes", "processes"),
    Column("group", "group", ","),
    Column("padded_shuffled", "padded, shuffled", ".2f"),
    Column("padded_grouped", "padded, grouped", ".2f"),
    Column("waited_shuffled", "waited, shuffled", ".2f"),
    Column("waited_grouped", "waited, grouped", ".2f"),
)


def drawn(size: int) -> dict[str, np.ndarray]:
    """Name -> int64[size], frames of each video."""
    rng = np.random.default_rng(0)
    skewed = rng.lognormal(np.log(90), 1, size).astype(np.int64)
    return {"64 to 256": rng.integers(64, 257, size), "log-normal": skewed.clip(1, MAX_FRAMES)}


def cost(frames: np.ndarray, batch_size: int, processes: int, groups: LengthGroups | None) -> tuple[float, float]:
    """Padded frames, and those of the slowest process, over the frames of some epochs."""
    padded = waited = 0
    for epoch in range(EPOCHS):
        ranks = []
        for rank in range(processes):
            batches = EpochBatches(
                len(frames), batch_size, seed=0, shuffle=True, rank=rank, world_size=processes, groups=groups
            )
            batches.set_epoch(epoch)
            ranks.append([frames[[place.number for place in batch]] for batch in batches])
        padded += sum(len(batch) * int(batch.max(initial=0)) for rank in ranks for batch in rank)
        waited += sum(max(int(batch.sum()) for batch in step) for step in zip(*ranks, strict=True)) * processes
    total = int(frames.sum()) * EPOCHS
    return padded / total, waited / total


def measure(size: int) -> list[Row]:
    """A row for each kind of lengths and shape of a step."""
    rows: list[Row] = []
    for name, frames in drawn(size).items():
        for batch_size, processes in SHAPES:
            group = max(LEAST_GROUP, batch_size * processes)
            row: dict[str, str | int | float] = {
                "lengths": name, "batch_size": batch_size, "processes": processes, "group": group,
            }  # fmt: skip
            for way, groups in (("shuffled", None), ("grouped", LengthGroups(group, frames))):
                row[f"padded_{way}"], row[f"waited_{way}"] = cost(frames, batch_size, processes, groups)
            rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for every kind of lengths and shape of a step."""
    wanted = options(__doc__ or "", argv)
    rows = measure(QUICK_SIZE if wanted.quick else SIZE)
    report("Grouping by length: frames padded to and waited for, over those that there are", rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
