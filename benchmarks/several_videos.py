"""What it saves to fill the vision tower's chunks across the videos of a batch, against one video after the other.

    python benchmarks/several_videos.py

Both ways go through selector, vision tower, merger and projector of the small model (``model=tiny``: 64 patches a
frame, vision width 64, chunks of 64 frames, 4 keyframes) with one question about each video, and give the same tokens.
The scorer is left out: it takes each video by itself in both ways, and the videos bring its embeddings.  Training is
forward and backward with a frozen tower, gradients reach merger and projector.

A core takes a quarter of the time for a chunk that is a quarter full, and saves what a call itself costs.  A GPU is
made for full ones: the number of calls is what there is to save there, and how much of it is saved was not measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from harness import Column, Row, alternate, options, report
from small_model import one_question, rolling_video, small_model

from vilamp.embedding_cache import Lookup
from vilamp.models.video_lm import VideoLM
from vilamp.samples import Batch, Video

CHUNK = 64
BATCHES = ((64, 4), (32, 8), (16, 24), (8, 40), (4, 100), (2, 600))
"""Videos of a batch, and frames of each."""
REPEATS = 7
QUICK_BATCHES, QUICK_REPEATS = ((8, 4), (2, 70)), 1
MODES = ("inference", "training")
TOGETHER, ALONE = "together", "one by one"

COLUMNS = (
    Column("mode", "mode"),
    Column("videos", "videos"),
    Column("frames", "frames of each"),
    Column("calls_alone", "calls, one by one"),
    Column("calls_together", "calls, together"),
    Column("calls_ratio", "calls ratio", ".2f"),
    Column("alone_s", "CPU ms, one by one", ".1f", 1e3),
    Column("together_s", "CPU ms, together", ".1f", 1e3),
    Column("time_ratio", "time ratio", ".2f"),
)


def known_video(model: VideoLM, num_frames: int) -> Video:
    """A video that brings the scorer's embeddings."""
    video = rolling_video(num_frames)
    return replace(video, lookup=Lookup(video.key, model.scorer.embed_frames(video.frames), video.timestamps))


def walk(model: VideoLM, batches: Sequence[Batch], trains: bool) -> list[torch.Tensor]:
    """The visual sequences of some batches, one batch after the other, and in training back again."""
    with torch.set_grad_enabled(trains):
        sequences = [tokens for batch in batches for tokens in model.see(batch)[0] if tokens is not None]
    if trains:
        model.zero_grad()
        torch.cat(sequences).sum().backward()
    return [sequence.detach() for sequence in sequences]


def calls(model: VideoLM, batches: Sequence[Batch], trains: bool) -> int:
    """How often the tower runs."""
    count = 0

    def called(*_: object) -> None:
        nonlocal count
        count += 1

    handle = model.vision_tower.register_forward_pre_hook(called)
    walk(model, batches, trains)
    handle.remove()
    return count


def measure(mode: str, sizes: Sequence[tuple[int, int]], repeats: int) -> list[Row]:
    """A row for each batch."""
    trains = mode == "training"
    model = small_model("num_keyframes=4", f"model.chunk_size={CHUNK}", trains=trains)
    rows: list[Row] = []
    for count, num_frames in sizes:
        video = known_video(model, num_frames)
        single = [one_question(video, seed) for seed in range(count)]
        batch = Batch([video] * count, [one.questions[0] for one in single], list(range(count)))
        for one, other in zip(walk(model, [batch], False), walk(model, single, False), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        ways = {TOGETHER: [batch], ALONE: single}
        made = {way: calls(model, batches, trains) for way, batches in ways.items()}
        runs = {way: lambda batches=batches: walk(model, batches, trains) for way, batches in ways.items()}
        seconds = alternate(runs, repeats, time.process_time)
        rows.append(
            {
                "mode": mode,
                "videos": count,
                "frames": num_frames,
                "calls_alone": made[ALONE],
                "calls_together": made[TOGETHER],
                "calls_ratio": made[TOGETHER] / made[ALONE],
                "alone_s": seconds[ALONE],
                "together_s": seconds[TOGETHER],
                "time_ratio": seconds[TOGETHER] / seconds[ALONE],
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for every mode and batch."""
    wanted = options(__doc__ or "", argv)
    sizes, repeats = (QUICK_BATCHES, QUICK_REPEATS) if wanted.quick else (BATCHES, REPEATS)
    rows = [row for mode in MODES for row in measure(mode, sizes, repeats)]
    report(f"The tower's chunks of {CHUNK} frames, filled across videos", rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
