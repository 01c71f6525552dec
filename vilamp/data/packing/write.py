"""Writing the shards of a plan: each whole and with its index, or not at all."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from vilamp.data.index_file import (
    BadIndexError,
    IndexFile,
    LeftOut,
    index_path,
    parse_index,
    read_index,
    to_bytes,
    write_atomically,
)
from vilamp.data.packing.indexing import video_seconds
from vilamp.data.packing.plan import PlannedSample, PlannedShard
from vilamp.data.shard_sample import ShardIndex, ShardSample, checksum
from vilamp.data.sources import partial_path
from vilamp.data.tar_listing import BLOCK, Member
from vilamp.errors import DataError
from vilamp.samples import SkipSample


def finished(shard: PlannedShard, out: Path) -> IndexFile | None:
    """The index of a shard that was written by this plan already, None where it is still to be written.

    Raises:
        DataError: the name is taken by a shard of something else.
    """
    path = out / shard.name
    if not path.exists():
        return None
    try:
        index = read_index(str(path))
    except BadIndexError as error:
        raise DataError(f"{path} is there, and its index cannot be read ({error}); --overwrite replaces it") from error
    if index is None or index.plan != shard.digest or index.size != path.stat().st_size:
        raise DataError(
            f"{path} is there already, of other annotations, videos or settings; take another --out or --name, or "
            "replace it with --overwrite"
        )
    return index


def write_shard(shard: PlannedShard, videos: Path, out: Path) -> IndexFile:
    """Write one shard and its index.

    The tar gets its final name last, from a complete file on the disk: whoever sees it sees all of it, with its index.

    Raises:
        DataError: a file cannot be read or written, or was changed since the plan was made.
    """
    path = out / shard.name
    partial = partial_path(path)
    try:
        with partial.open("wb") as file:
            samples, left_out = _write_tar(file, shard, videos, str(path))
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        index = IndexFile(size, ShardIndex(samples, [], verified=True), shard.digest, tuple(left_out))
        content = to_bytes(index)
        write_atomically(index_path(path), content)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"--out: {path} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return parse_index(content, str(path))


def _write_tar(
    file: io.BufferedWriter, shard: PlannedShard, videos: Path, path: str
) -> tuple[list[ShardSample], list[LeftOut]]:
    samples, left_out = [], []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for planned in shard.samples:
            try:
                members, seconds = _members(planned, videos)
            except SkipSample as skip:
                rows = [(row, planned.rows.count(row)) for row in dict.fromkeys(planned.rows)]
                left_out += [LeftOut(row, planned.video, n, skip.reason, skip.detail[:300]) for row, n in rows]
                continue
            places, checksums = {}, {}
            for extension, content in members.items():
                # Nothing of the time or the user goes in: the same input gives the same bytes.
                info = tarfile.TarInfo(f"{planned.key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                places[extension] = Member(file.tell() - -(-len(content) // BLOCK) * BLOCK, len(content))
                checksums[extension] = checksum(content)
            samples.append(ShardSample(path, planned.key, places, checksums, seconds))
    return samples, left_out


def _members(planned: PlannedSample, videos: Path) -> tuple[dict[str, bytes], float | None]:
    """Extension -> content, and the length of the video.

    Raises:
        SkipSample: the video cannot be read.
        DataError: it is another than when the plan was made.
    """
    if not planned.video:
        return {"json": planned.annotation()}, None
    try:
        content = (videos / planned.video).read_bytes()
    except OSError as error:
        raise SkipSample("unreadable_file", str(error)) from error
    if len(content) != planned.size:
        raise DataError(
            f"{videos / planned.video} had {planned.size} bytes and now has {len(content)}: it changed while it was "
            "packed; start again when the videos are complete"
        )
    seconds = video_seconds(content)
    return {"json": planned.annotation(), planned.extension: content}, seconds
