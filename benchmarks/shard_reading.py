"""What reading a shard by its index costs, beside plain ``tarfile``.

    python benchmarks/shard_reading.py

All go through every member of the same shard to the last byte, in the order of the tar, and decode nothing.  ``ours``
opens the index, finds each sample by it and verifies the checksum of every member, as training does: a video is read in
pieces that stay in the processor's cache, and left where it lies.  ``twice`` then reads the video once more in pieces,
which is what a decoder adds to that.  ``whole`` is ours where videos are taken into memory and verified there, as those
from a server are.  ``tarfile`` walks over the headers, takes every member into memory and verifies nothing.

The file is in the page cache, the worst case for a checksum: from a disk or a network all wait for the same bytes.  So
nothing is waited for, and the seconds are those of the processor, the kernel's copying among them, which other programs
disturb less.  The goal is 1.2 times ``tarfile``.
"""

from __future__ import annotations

import gc
import random
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import Column, alternate, options, report

from vilamp.data.index_file import index_path, to_bytes, write_atomically
from vilamp.data.packing.indexing import index_foreign_shard
from vilamp.data.shard_sample import PIECE
from vilamp.data.shards import index_shard
from vilamp.probe import FileRange, open_source

KIB, MIB = 1 << 10, 1 << 20
POINTS = [(64 * KIB, 4_000), (MIB, 400), (16 * MIB, 32)]
"""Bytes of a video, and how many of them: 250 to 512 MB in a shard."""
QUICK_POINTS = [(64 * KIB, 20)]
REPEATS, QUICK_REPEATS = 21, 3

COLUMNS = (
    Column("video_bytes", "bytes of a video", ","),
    Column("videos", "videos", ","),
    Column("ours_s", "ours, ms", ".1f", scale=1e3),
    Column("tarfile_s", "tarfile, ms", ".1f", scale=1e3),
    Column("twice_s", "twice, ms", ".1f", scale=1e3),
    Column("whole_s", "whole, ms", ".1f", scale=1e3),
    Column("ours_over_tarfile", "ours / tarfile", ".2f"),
    Column("twice_over_tarfile", "twice / tarfile", ".2f"),
    Column("whole_over_tarfile", "whole / tarfile", ".2f"),
    Column("gb_per_s", "ours, GB/s", ".1f"),
)


def write_shard(path: Path, video_bytes: int, videos: int) -> None:
    """A shard of noise with its index."""
    noise = random.Random(0).randbytes(video_bytes)
    with tarfile.open(path, "w") as tar:
        for number in range(videos):
            for extension, content in (("json", b'{"questions": []}' * 20), ("mp4", noise)):
                info = tarfile.TarInfo(f"{number:06d}.{extension}")
                info.size = len(content)
                with tempfile.SpooledTemporaryFile() as source:
                    source.write(content)
                    source.seek(0)
                    tar.addfile(info, source)
    write_atomically(index_path(path), to_bytes(index_foreign_shard(str(path))[0]))


def read_by_index(shard: str, again: bool = False) -> int:
    """Bytes read, those of a video once more in ``again``."""
    total = 0
    for sample in index_shard(shard).samples:
        video = sample.source("mp4")
        assert isinstance(video, FileRange)
        total += len(sample.read("json")) + (_in_pieces(video) if again else video.size)
    return total


def _in_pieces(video: FileRange) -> int:
    total = 0
    with open_source(video) as file:
        while piece := file.read(PIECE):
            total += len(piece)
    return total


def read_whole(shard: str) -> int:
    """Bytes read."""
    samples = index_shard(shard).samples
    return sum(len(sample.read(extension)) for sample in samples for extension in sample.members)


def read_by_tarfile(shard: str) -> int:
    """Bytes read."""
    total = 0
    with tarfile.open(shard) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            total += len(file.read())
    return total


def ways(shard: str) -> dict[str, Callable[[], int]]:
    """The calls to compare."""
    return {
        "ours": lambda: read_by_index(shard),
        "tarfile": lambda: read_by_tarfile(shard),
        "twice": lambda: read_by_index(shard, again=True),
        "whole": lambda: read_whole(shard),
    }


def measure(video_bytes: int, videos: int, repeats: int) -> dict[str, str | int | float]:
    """The row of one shard.

    Raises:
        ValueError: two of them do not read the same number of bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.tar")
        write_shard(path, video_bytes, videos)
        calls = ways(str(path))
        total = calls["ours"]()
        if {call() for call in calls.values()} != {total}:
            raise ValueError(f"{videos} videos: not all read the same number of bytes")
        seconds = alternate(calls, repeats, time.process_time)
    return {
        "video_bytes": video_bytes,
        "videos": videos,
        **{f"{way}_s": value for way, value in seconds.items()},
        **{f"{way}_over_tarfile": seconds[way] / seconds["tarfile"] for way in ("ours", "twice", "whole")},
        "gb_per_s": total / seconds["ours"] / 1e9,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for every size."""
    wanted = options(__doc__ or "", argv)
    points, repeats = (QUICK_POINTS, QUICK_REPEATS) if wanted.quick else (POINTS, REPEATS)
    gc.freeze()  # else every other call walks over all that the imports left, which costs as much as the reading
    rows = [measure(video_bytes, videos, repeats) for video_bytes, videos in points]
    report("Reading a shard to the last byte from the page cache, processor time", rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
