"""Indexes for shards that others wrote."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vilamp.data.annotations import MAX_BYTES, parse_annotation
from vilamp.data.frame_reader import FrameReader
from vilamp.data.index_file import IndexFile, index_path, to_bytes, write_atomically
from vilamp.data.packing.looking import look_at_video
from vilamp.data.shard_sample import ShardIndex, ShardSample, checksum_of
from vilamp.data.shards import walk_shard
from vilamp.data.spool import Spool
from vilamp.errors import DataError
from vilamp.samples import Skip, SkipSample


@dataclass(frozen=True)
class Indexed:
    """What became of a shard.

    Attributes:
        samples: in the index.
        refused: what is in the shard and will not be trained on, whether or not it is a sample.
        error: why there is no index; empty where there is one.
    """

    samples: int
    refused: list[Skip]
    error: str = ""


def write_foreign_index(shard: str, overwrite: bool = False) -> Indexed:
    """Write the index beside a shard."""
    path = Path(index_path(shard))
    if path.exists() and not overwrite:
        return Indexed(0, [], f"{path} is there already; --overwrite replaces it")
    try:
        file, unusable = index_foreign_shard(shard)
        write_atomically(path, to_bytes(file))
    except (DataError, OSError) as error:
        return Indexed(0, [], str(error))
    return Indexed(len(file.index.samples), [*file.index.skips, *unusable])


def index_foreign_shard(shard: str) -> tuple[IndexFile, list[Skip]]:
    """Index a shard by reading it once.

    Returns:
        The index; and the samples in it that training will skip, with the reason.

    Raises:
        DataError: the shard cannot be read to its end.  An index of what is left would make the rest look as if it had
            never been there.
    """
    walked = walk_shard(shard)
    damage = [skip.detail for skip in walked.skips if skip.reason == "damaged_shard"]
    if damage:
        raise DataError(f"{shard}: {damage[0]}; a damaged shard is not indexed, copy it again from where it came from")
    samples, unusable = [], []
    for sample in walked.samples:
        samples.append(_with_checksums(sample))
        try:
            _, seconds, flaw = usable(samples[-1])
            samples[-1] = replace(samples[-1], seconds=seconds)
            if flaw:
                raise SkipSample("decode", flaw)
        except SkipSample as skip:
            unusable.append(Skip(sample.key, shard, skip.reason, skip.detail))
    size = Path(shard).stat().st_size
    return IndexFile(size, ShardIndex(samples, walked.skips, verified=True)), unusable


def usable(
    sample: ShardSample,
    spool: Spool = Spool(),  # noqa: B008
    reader: FrameReader | None = None,
) -> tuple[int, float | None, str]:
    """Verify a sample: every member that has a checksum, the annotation, and the video.

    Args:
        sample: of a shard.
        spool: where its video is put if a server sends it.
        reader: decodes the video; without one only its packets are read.

    Returns:
        How many questions it has; the length of its video in seconds, None for text alone; and what says that the
        video is not whole, so that only ``data.corrupt=gap`` uses it.

    Raises:
        SkipSample: it will be skipped by a training, too.
    """
    annotation = parse_annotation(sample.read("json", MAX_BYTES))
    extension = sample.video(annotation)
    for other in sorted(sample.checksums.keys() - {"json", extension}):
        sample.source(other, spool)
    if extension is None:
        return len(annotation.questions), None, ""
    source = sample.source(extension, spool)
    if reader is not None:
        reader.read(source, sample.key, sample.shard)
    return len(annotation.questions), *look_at_video(source, reader)


def _with_checksums(sample: ShardSample) -> ShardSample:
    try:
        checksums = {name: checksum_of(sample.shard, place)[0] for name, place in sample.members.items()}
    except OSError as error:
        raise DataError(f"{sample.shard}: {error}") from error
    return replace(sample, checksums=checksums)
