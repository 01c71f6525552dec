"""What selecting keyframes costs: ours, the published procedure, and one bare pass over the embeddings.

    python benchmarks/selection.py

All get the same unit embeddings (width 512) and the same budget (32 keyframes); ours and the published procedure must
take the same frames.  Ours is the whole call of the selector, with its checks.  The bare pass is ``frames @ query``:
nothing that looks at every frame can be faster.  The promises are for 10,000 frames: 100 times faster than the
published procedure, 10 bare passes and 4 MiB at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from harness import Column, alternate, extra_mib, growth_mib, options, report
from torch import Tensor
from torch.nn import functional as F

from vilamp.selectors.differential import DifferentialSelector

WIDTH, K, TAU = 512, 32, 0.85
SIZES, REPEATS = (600, 2_500, 10_000), 15
SCENES, FEW_SCENES = 100, 12
KINDS = ("random", "scenes", "few scenes", "static")
"""Videos of frames that are all unlike, of :data:`SCENES` equally long scenes, of fewer scenes than keyframes, so that
every frame must be looked at, and of one shot, in a little noise."""

POINTS = [(size, kind) for size in SIZES for kind in KINDS]
QUICK_POINTS, QUICK_REPEATS = [(200, "scenes")], 3

COLUMNS = (
    Column("n", "frames", ","),
    Column("kind", "video"),
    Column("keyframes", "taken"),
    Column("ours_s", "ours, ms", ".3f", scale=1e3),
    Column("published_s", "published, ms", ".2f", scale=1e3),
    Column("bare_pass_s", "bare pass, ms", ".3f", scale=1e3),
    Column("published_over_ours", "published / ours", ".0f"),
    Column("ours_over_bare_pass", "ours / bare pass", ".1f"),
    Column("ours_extra_mib", "ours, MiB", ".2f"),
    Column("published_extra_mib", "published, MiB", ".1f"),
    Column("bare_pass_extra_mib", "bare pass, MiB", ".2f"),
)


def video(kind: str, num_frames: int) -> tuple[Tensor, Tensor]:
    """Unit frames float[N, Ds] and a unit query float[Ds]."""
    pictures = min(num_frames, {"random": num_frames, "scenes": SCENES, "few scenes": FEW_SCENES, "static": 1}[kind])
    generator = torch.Generator().manual_seed(0)
    shown = torch.arange(num_frames) * pictures // num_frames
    frames = torch.randn(pictures, WIDTH, generator=generator)[shown]
    frames += 0.1 * torch.randn(num_frames, WIDTH, generator=generator)
    return F.normalize(frames, dim=-1), F.normalize(torch.randn(WIDTH, generator=generator), dim=-1)


def published(frames: Tensor, query: Tensor, num_keyframes: int, tau: float, floor: float = -1.0) -> list[int]:
    """The keyframes, ascending, by the published procedure, without its filling up of places.

    It makes the matrix of all cosines, then goes down from the most relevant frame, and each frame that it takes marks
    all those like it as visited.  Every step waits for the device to tell whether the frame is visited.

    Args:
        frames: float[N, Ds], unit rows.
        query: float[Ds], unit norm.
        num_keyframes: take no more than this.
        tau: a frame whose cosine with a taken one is greater is not taken.
        floor: nor is one less relevant than this.
    """
    cosines = frames @ frames.T
    relevance, order = (frames @ query).sort(descending=True, stable=True)
    visited = torch.zeros(len(frames), dtype=torch.bool, device=frames.device)
    taken: list[int] = []
    for score, frame in zip(relevance, order, strict=True):
        if len(taken) == num_keyframes or score < floor:
            break
        if not visited[frame]:
            taken.append(int(frame))
            visited |= cosines[frame] > tau
    return sorted(taken)


def ways(kind: str, num_frames: int) -> dict[str, Callable[[], Tensor | list[int]]]:
    """The calls to compare for one video."""
    frames, query = video(kind, num_frames)
    timestamps = torch.arange(num_frames, dtype=torch.float64)
    selector = DifferentialSelector(TAU)
    return {
        "ours": lambda: selector(frames, query, K, timestamps=timestamps).keyframes,
        "published": lambda: published(frames, query, K, TAU),
        "bare_pass": lambda: frames @ query,
    }


def grow(way: str, kind: str, num_frames: int) -> float:
    """MiB that one call takes beyond its inputs, in this process."""
    ways("static", 50)[way]()  # loads what torch loads at the first use
    return growth_mib(ways(kind, num_frames)[way])


def measure(kind: str, num_frames: int, repeats: int) -> dict[str, str | int | float]:
    """The row of one video.

    Raises:
        ValueError: ours and the published procedure take different frames.
    """
    calls = ways(kind, num_frames)
    taken = torch.as_tensor(calls["ours"]()).tolist()
    if taken != calls["published"]():
        raise ValueError(f"{num_frames} frames, {kind}: ours and the published procedure take different frames")
    seconds = alternate(calls, repeats)
    return {
        "n": num_frames,
        "kind": kind,
        "keyframes": len(taken),
        **{f"{way}_s": value for way, value in seconds.items()},
        "published_over_ours": seconds["published"] / seconds["ours"],
        "ours_over_bare_pass": seconds["ours"] / seconds["bare_pass"],
        **{f"{way}_extra_mib": extra_mib(__file__, way, kind, num_frames) for way in calls},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for every video."""
    wanted = options(__doc__ or "", argv)
    if wanted.grow:
        way, kind, num_frames = wanted.grow
        print(grow(way, kind, int(num_frames)))
        return
    points, repeats = (QUICK_POINTS, QUICK_REPEATS) if wanted.quick else (POINTS, REPEATS)
    rows = [measure(kind, size, repeats) for size, kind in points]
    report(f"Selection: width {WIDTH}, K = {K}, tau = {TAU}, float32", rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
