"""What a long video takes of memory on its whole way: the worker, the process that decodes, what waits, and the model.

    python benchmarks/pipeline_memory.py

A long video and one of 100 seconds go through a DataLoader with one worker, as in training, at one frame a second and
384 pixels; while the second is decoded, the first goes forward and backward through the visual path of ``model=tiny``.
The videos are those of ``benchmarks/decoding.py``, 640x360.  Memory is the highest of samples, four a second, of
:func:`vilamp.training.memory.tree_gib` in a fresh process: all processes together, with shared memory.  What the system
keeps of files in its own memory, and gives up when it is wanted, is no part of it.

``files`` is the default of ``data.frames_in_memory``, which puts the frames of videos of more than ten minutes into
files; ``memory`` is without a limit.  The promises: 10,000 frames in 1.5 GB, and from ten minutes to three hours, which
are 10,800 frames, 1.1 times as much.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from decoding import GOPS, SIZE, make_video
from harness import Column, Row, extra_mib, options, report
from small_model import one_question, small_model
from webdataset import TarWriter

from vilamp.data.index_file import index_path, to_bytes, write_atomically
from vilamp.data.module import VideoDataModule
from vilamp.data.packing.indexing import index_foreign_shard
from vilamp.data.packing.looking import stop_looking
from vilamp.data.spool import IN_MEMORY_GIB
from vilamp.decoders.auto import AutoDecoder
from vilamp.samples import EncodedQuestion, Question
from vilamp.training.memory import reset_peak_rss, tree_gib

LIMITS = {"files": IN_MEMORY_GIB, "memory": None}
POINTS = (("memory", 2_500), ("files", 600), ("files", 10_800))
QUICK_POINTS = (("memory", 20), ("files", 20))
KEYFRAMES, SECOND, EVERY = 32, 100, 0.25

COLUMNS = (
    Column("frames_in", "frames in"),
    Column("seconds", "video, s", ","),
    Column("frames_mib", "frames of a video, MiB", ",.0f"),
    Column("peak_mib", "peak of all processes, MiB", ",.0f"),
    Column("over_first", "over the first", ".2f"),
)


def write_shard(folder: Path, seconds: int) -> Path:
    """A shard with its index: a video of this length and a short one."""
    shard = folder / f"{seconds}.tar"
    annotation = {"video": "mp4", "questions": [{"question": "What is it?", "answer": "bikes"}]}
    with TarWriter(str(shard)) as tar:
        for key, length in (("first", seconds), ("second", SECOND)):
            video = make_video(folder, length, GOPS[0])
            tar.write({"__key__": key, "mp4": video.read_bytes(), "json": annotation})
            video.unlink()
    write_atomically(index_path(shard), to_bytes(index_foreign_shard(str(shard))[0]))
    stop_looking()  # else its process would count
    return shard


def encode(question: Question, key: str, has_video: bool, seed: int) -> EncodedQuestion:
    """Nothing but the key: the model is asked random words."""
    nothing = torch.zeros(0, dtype=torch.int64)
    return EncodedQuestion(key, question, nothing, nothing, nothing, seed)


class HighWater(threading.Thread):
    """Samples the memory of all processes until it is told to end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_gib = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        """Sample."""
        while not self.done.wait(EVERY):
            self.peak_gib = max(self.peak_gib, tree_gib() or 0.0)


def grow(frames_in: str, shard: str) -> float:
    """MiB of all processes at their peak while the videos of a shard go through."""
    model = small_model(f"num_keyframes={KEYFRAMES}", f"model.frame_size={SIZE}")
    data = VideoDataModule(
        val=shard,
        max_frames=1 << 30,
        frame_size=SIZE,
        decode_timeout=3600,
        decode_memory=4.0,
        frames_in_memory=LIMITS[frames_in],
        num_workers=1,
        encode=encode,
        decoder=AutoDecoder(),
    )
    data.setup()
    reset_peak_rss()
    water = HighWater()
    water.start()
    loader = data.val_dataloader()
    assert not isinstance(loader, list)
    for batch in loader:
        if batch.skipped:
            raise RuntimeError(f"{shard}: {batch.skipped}")
        tokens = model.see(one_question(batch.videos[0]))[0][0]
        assert tokens is not None
        model.zero_grad()
        tokens.backward(torch.ones(()).expand_as(tokens))
    water.done.set()
    water.join()
    return water.peak_gib * 1024


def measure(folder: Path, points: Sequence[tuple[str, int]]) -> list[Row]:
    """A row for each point."""
    rows: list[dict[str, str | int | float]] = []
    for frames_in, seconds in points:
        shard = write_shard(folder, seconds)
        peak = extra_mib(__file__, frames_in, str(shard))
        shard.unlink()
        mib = seconds * 3 * SIZE**2 / 2**20
        rows.append({"frames_in": frames_in, "seconds": seconds, "frames_mib": mib, "peak_mib": peak})
    first = {str(row["frames_in"]): float(row["peak_mib"]) for row in reversed(rows)}
    return [row | {"over_first": float(row["peak_mib"]) / first[str(row["frames_in"])]} for row in rows]


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for every point."""
    wanted = options(__doc__ or "", argv)
    if wanted.grow:
        print(grow(*wanted.grow))
        return
    with tempfile.TemporaryDirectory() as name:
        rows = measure(Path(name), QUICK_POINTS if wanted.quick else POINTS)
    report(f"A long video through a DataLoader and the visual path, {SIZE} px", rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
