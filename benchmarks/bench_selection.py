"""What selecting the keyframes of a 10,000-frame video costs, beside the same walk over the matrix of all pairs.

    python benchmarks/bench_selection.py

Both get the same unit embeddings (width 512) and the same budget (32 keyframes), and must take the same frames.  The
other walk is the obvious way: all N x N cosines first, then from the most relevant frame down, each frame that is taken
blocks its like.  Seconds are the median of calls that take turns in one process.  Memory is what the resident set
grows by, at its peak, during one call in a fresh process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vilamp.selectors.differential import DifferentialSelector
from vilamp.training.memory import peak_rss_gib, reset_peak_rss

N, WIDTH, K, TAU = 10_000, 512, 32, 0.85
REPEATS = 7
VIDEOS = {"unlike frames": N, "100 scenes": 100, "one static shot": 1}
"""How many different pictures the video shows, each for as long as the others, in a little noise."""


def video(pictures: int, num_frames: int = N) -> tuple[Tensor, Tensor]:
    """Unit frames float[N, Ds] and a unit query float[Ds]."""
    generator = torch.Generator().manual_seed(0)
    shown = torch.arange(num_frames) * pictures // num_frames
    frames = torch.randn(pictures, WIDTH, generator=generator)[shown]
    frames += 0.1 * torch.randn(num_frames, WIDTH, generator=generator)
    return F.normalize(frames, dim=-1), F.normalize(torch.randn(WIDTH, generator=generator), dim=-1)


def ours(frames: Tensor, query: Tensor) -> list[int]:
    """The keyframes by ``selector=differential``."""
    timestamps = torch.arange(len(frames), dtype=torch.float64)
    return DifferentialSelector(TAU)(frames, query, K, timestamps=timestamps).keyframes.tolist()


def all_pairs(frames: Tensor, query: Tensor) -> list[int]:
    """The keyframes by the matrix of all cosines."""
    cosines = frames @ frames.T
    blocked = torch.zeros(len(frames), dtype=torch.bool)
    taken: list[int] = []
    for frame in (frames @ query).argsort(descending=True, stable=True).tolist():
        if len(taken) == K:
            break
        if not blocked[frame]:
            taken.append(frame)
            blocked |= cosines[frame] > TAU
    return sorted(taken)


HONEST_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0"}
"""Makes glibc give memory back when it is freed, so that a call cannot hide in what was used before it."""

WAYS: dict[str, Callable[[Tensor, Tensor], list[int]]] = {"ours": ours, "all pairs": all_pairs}


def extra_mib(way: str, pictures: int) -> float:
    """MiB by which the resident set grows in one call, in this process; call it once only."""
    frames, query = video(pictures)
    WAYS[way](*video(1, num_frames=50))  # loads what torch loads at the first use
    reset_peak_rss()
    before = peak_rss_gib()
    WAYS[way](frames, query)
    return (peak_rss_gib() - before) * 1024


def seconds(frames: Tensor, query: Tensor) -> dict[str, float]:
    """The median time of each way; they take turns, so that a disturbance meets both."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(REPEATS):
        for way, run in WAYS.items():
            start = time.perf_counter()
            run(frames, query)
            times[way].append(time.perf_counter() - start)
    return {way: statistics.median(values) for way, values in times.items()}


def main() -> int:
    """Print a line for every kind of video; returns 1 where the two ways do not take the same frames."""
    if len(sys.argv) == 3:
        print(extra_mib(sys.argv[1], VIDEOS[sys.argv[2]]))
        return 0
    print(f"N = {N:,}, width {WIDTH}, K = {K}, tau = {TAU}, float32, {torch.get_num_threads()} thread(s)")
    for name, pictures in VIDEOS.items():
        frames, query = video(pictures)
        chosen = ours(frames, query)
        if chosen != all_pairs(frames, query):
            print(f"{name}: the two ways take different frames")
            return 1
        took, grew = seconds(frames, query), {}
        for way in WAYS:
            command = [sys.executable, __file__, way, name]
            child = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **HONEST_MALLOC}
            )
            grew[way] = float(child.stdout)
        ratio = took["all pairs"] / took["ours"]
        print(
            f"{name}: {len(chosen)} keyframes; "
            f"{took['ours'] * 1e3:.1f} ms beside {took['all pairs'] * 1e3:.0f} ms, {ratio:.0f} times faster; "
            f"{grew['ours']:.1f} MiB beside {grew['all pairs']:.0f} MiB extra, "
            f"{grew['all pairs'] / max(grew['ours'], 0.1):.0f} times less"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
