"""Writing the shards of a plan: each whole and with its index, or not at all."""

from __future__ import annotations

import io
import logging
import os
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import xxhash

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
from vilamp.data.packing.looking import look_at_video
from vilamp.data.packing.plan import PlannedSample, PlannedShard
from vilamp.data.shard_sample import PIECE, ShardIndex, ShardSample
from vilamp.data.sources import partial_path
from vilamp.data.tar_listing import BLOCK, Member
from vilamp.errors import DataError
from vilamp.probe import FileRange
from vilamp.samples import SkipSample

log = logging.getLogger(__name__)


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
    with tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, copybufsize=PIECE) as tar:
        for planned in shard.samples:
            begin = file.tell()
            try:
                samples.append(_write_sample(tar, file, planned, videos, path))
            except SkipSample as skip:
                file.seek(begin)
                file.truncate()
                tar.offset = begin
                rows = [(row, planned.rows.count(row)) for row in dict.fromkeys(planned.rows)]
                left_out += [LeftOut(row, planned.video, n, skip.reason, skip.detail[:300]) for row, n in rows]
    return samples, left_out


def _write_sample(
    tar: tarfile.TarFile, file: io.BufferedWriter, planned: PlannedSample, videos: Path, shard: str
) -> ShardSample:
    """Write one sample; of its video no more than a piece is in memory.

    Raises:
        SkipSample: the video cannot be read.  Some of the sample may have been written.
        DataError: it is another than when the plan was made.
    """
    annotation, seconds = planned.annotation(), None
    sources: dict[str, tuple[BinaryIO, int]] = {"json": (io.BytesIO(annotation), len(annotation))}
    places, checksums = {}, {}
    with ExitStack() as opened:
        if planned.video:
            video = videos / planned.video
            sources[planned.extension] = (opened.enter_context(_unchanged(video, planned.size)), planned.size)
            seconds, damage = look_at_video(FileRange(str(video), 0, planned.size))
            if damage:
                log.warning("%s: %s; it is packed, and used with data.corrupt=gap only", video, damage)
        for extension, (source, size) in sources.items():
            # Nothing of the time or the user goes in: the same input gives the same bytes.
            info = tarfile.TarInfo(f"{planned.key}.{extension}")
            info.size = size
            summed = _Summed(source)
            tar.addfile(info, summed)
            places[extension] = Member(file.tell() - -(-size // BLOCK) * BLOCK, size)
            checksums[extension] = summed.digest.hexdigest()
    return ShardSample(shard, planned.key, places, checksums, seconds)


@contextmanager
def _unchanged(video: Path, planned: int) -> Iterator[BinaryIO]:
    """A video to read, which has the size in bytes that was planned, before and after.

    Raises:
        SkipSample: it cannot be opened.
        DataError: it has another size.
    """
    try:
        file = video.open("rb")
    except OSError as error:
        raise SkipSample("unreadable_file", str(error)) from error

    def check() -> None:
        size = os.fstat(file.fileno()).st_size
        if size != planned:
            raise DataError(
                f"{video} had {planned} bytes and now has {size}: it changed while it was packed; start again when the "
                "videos are complete"
            )

    with file:
        check()
        try:
            yield file
        finally:  # also in place of what is said of a file that has become shorter
            check()


class _Summed:
    """A file of whose bytes the checksum is taken as they are read."""

    def __init__(self, source: BinaryIO) -> None:
        self.source, self.digest = source, xxhash.xxh3_128()

    def read(self, size: int = -1, /) -> bytes:
        """As a file's."""
        try:
            piece = self.source.read(size)
        except OSError as error:  # else it would be taken for one of the shard
            raise SkipSample("unreadable_file", str(error)) from error
        self.digest.update(piece)
        return piece
