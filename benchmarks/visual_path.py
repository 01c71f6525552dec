"""What the visual path costs against the number of frames, up to 10,000, in inference and in training.

    python benchmarks/visual_path.py

The path is everything before the language model: scorer, selector, vision tower, merger, projector, interleaving, with
the small parts of the package (``model=tiny``: 64 patches a frame, vision width 64, language width 96), 32 keyframes
and chunks of 256 frames.  Training is forward and backward with a frozen tower, gradients reach merger and projector;
the gradient that the language model would send back is a constant here and takes no memory.

Two things are the caller's and grow with the video: the frames and the output tokens.  The frames here are views of a
few bytes and cost nothing; the tokens are taken off the memory that is reported.  Lengths take turns in one process for
the time; memory is measured in a fresh process per point.  The promises are, for 10,000 frames over 1,000: 11 times the
time and 1.15 times the memory at most.

In training autograd keeps a graph without tensors for each chunk, some 70 KB whatever the widths are.  At the size of
the 7B model this is nothing beside a chunk's activations; with parts as small as these and chunks of 64 frames it would
be 10 MB beside 17.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from harness import Column, Row, alternate, extra_mib, growth_mib, options, report
from small_model import one_question, rolling_video, small_model
from torch import Tensor

from vilamp.models.video_lm import VideoLM

KEYFRAMES, CHUNK = 32, 256
SIZES, REPEATS = (600, 1_000, 2_500, 5_000, 10_000), 3
QUICK_SIZES, QUICK_REPEATS = (100, 200), 1
BASE = 1_000
"""Ratios are over this many frames, or the fewest that are measured."""
MODES = ("inference", "training")

COLUMNS = (
    Column("mode", "mode"),
    Column("n", "frames", ","),
    Column("tokens", "tokens", ","),
    Column("seconds", "time, s", ".2f"),
    Column("ms_per_frame", "ms a frame", ".3f"),
    Column("time_over_base", "time ratio", ".2f"),
    Column("frames_over_base", "frames ratio", ".2f"),
    Column("output_mib", "output tokens, MiB", ".2f"),
    Column("extra_mib", "memory beyond them, MiB", ".1f"),
    Column("extra_over_base", "memory ratio", ".3f"),
)


def model_for(mode: str) -> VideoLM:
    """The small model, as the mode needs it."""
    return small_model(f"num_keyframes={KEYFRAMES}", f"model.chunk_size={CHUNK}", trains=mode == "training")


def walk(model: VideoLM, mode: str, num_frames: int) -> Tensor:
    """Once through the path: float[V, D], and in training back again."""
    batch = one_question(rolling_video(num_frames))
    with torch.set_grad_enabled(mode == "training"):
        tokens = model.see(batch)[0][0]
    assert tokens is not None
    if mode == "training":
        model.zero_grad()
        tokens.backward(torch.ones(()).expand_as(tokens))
    return tokens.detach()


def grow(mode: str, num_frames: int) -> float:
    """MiB that one walk takes in this process, the output tokens among it."""
    model = model_for(mode)
    walk(model, mode, 2 * CHUNK)  # loads what torch loads at the first use
    return growth_mib(lambda: walk(model, mode, num_frames))


def measure(mode: str, sizes: Sequence[int], repeats: int) -> list[Row]:
    """A row for each length."""
    model, shapes = model_for(mode), {}

    def at(size: int) -> Callable[[], None]:
        def run() -> None:
            shapes[size] = walk(model, mode, size).shape

        return run

    seconds = alternate({str(size): at(size) for size in sizes}, repeats)
    rows: list[dict[str, str | int | float]] = []
    for size in sizes:
        output = shapes[size].numel() * torch.float32.itemsize / 2**20
        took, grew = seconds[str(size)], extra_mib(__file__, mode, size)
        rows.append(
            {
                "mode": mode,
                "n": size,
                "tokens": shapes[size][0],
                "seconds": took,
                "ms_per_frame": took / size * 1e3,
                "output_mib": output,
                "extra_mib": grew - output,
            }
        )
    base = next((row for row in rows if row["n"] == BASE), rows[0])
    for row in rows:
        for ratio, figure in (("time", "seconds"), ("frames", "n"), ("extra", "extra_mib")):
            row[f"{ratio}_over_base"] = float(row[figure]) / float(base[figure])
    return [*rows]


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for every mode and length."""
    wanted = options(__doc__ or "", argv)
    if wanted.grow:
        mode, size = wanted.grow
        print(grow(mode, int(size)))
        return
    sizes, repeats = (QUICK_SIZES, QUICK_REPEATS) if wanted.quick else (SIZES, REPEATS)
    rows = [row for mode in MODES for row in measure(mode, sizes, repeats)]
    base = next((size for size in sizes if size == BASE), sizes[0])
    report(f"Visual path: ratios over {base:,} frames; K = {KEYFRAMES}, float32", rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
