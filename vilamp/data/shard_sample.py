"""One sample of a shard: where its members lie, and their bytes, verified where a checksum is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

import xxhash

from vilamp.data.annotations import VIDEO_EXTENSIONS, Annotation
from vilamp.data.sources import SourceError, read_range
from vilamp.data.tar_listing import Member
from vilamp.samples import Skip, SkipSample

MAX_MEMBER_BYTES = 4 << 30
"""A larger member is not read: a video is held in memory while it is decoded."""


def checksum(content: bytes) -> str:
    """128 bits of XXH3 in hex.

    It is for damage, not for malice: whoever can alter a shard can alter the index beside it.  The checksums of the
    standard library are slower than reading from memory, this one is not.
    """
    return xxhash.xxh3_128_hexdigest(content)


def checksum_of(file: BinaryIO, place: Member) -> str:
    """The :func:`checksum` of a member of any size, read in pieces."""
    digest = xxhash.xxh3_128()
    file.seek(place.offset)
    left = place.size
    while left and (piece := file.read(min(left, 1 << 20))):
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class ShardSample:
    """One ``<key>.json`` of a shard and what stands beside it.

    Attributes:
        shard: path or URL of the tar, or the command that writes it.
        key: the member's name without ``.json``.
        members: extension (``json``, ``mp4`` ...) -> place.
        checksums: extension -> :func:`checksum` of the member; empty where there is no index.
        seconds: length of the video, None where there is no index, no video, or one that cannot be read.
        copy: the local file that is read in its place; empty where it is read itself.
    """

    shard: str
    key: str
    members: dict[str, Member]
    checksums: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    copy: str = ""

    def read(self, extension: str, most: int = MAX_MEMBER_BYTES) -> bytes:
        """The bytes of one member, of which there may be ``most``.

        Raises:
            SkipSample: ``missing_member``, ``too_large``, ``damaged_shard`` where the file has become shorter since,
                ``unreachable`` where a server does not answer, or ``checksum`` where the bytes are no longer those of
                the index.
        """
        member = self.members.get(extension)
        if member is None:
            others = ", ".join(f"{self.key}.{name}" for name in sorted(self.members)[:5])
            raise SkipSample("missing_member", f"no {self.key}.{extension} in the shard; there is {others}")
        if member.size > most:
            raise SkipSample("too_large", f"{self.key}.{extension} has {member.size} bytes, {most} are allowed")
        try:
            source = read_range(self.copy or self.shard, member.offset, member.size)
        except SourceError as error:
            raise SkipSample("unreachable", f"{self.key}.{extension}: {error}") from error
        except OSError as error:
            raise SkipSample("damaged_shard", f"{self.key}.{extension}: {error}") from error
        if len(source) != member.size:
            raise SkipSample("damaged_shard", f"{self.key}.{extension}: {len(source)} of {member.size} bytes are there")
        expected = self.checksums.get(extension)
        if expected is not None and checksum(source) != expected:
            raise SkipSample("checksum", f"{self.key}.{extension}: the bytes are not those that were indexed")
        return source

    def video(self, annotation: Annotation) -> str | None:
        """The extension of the video that ``annotation``, the sample's own, is about; None for text-only questions.

        Raises:
            SkipSample: ``bad_json``; there is a video that the annotation does not name.
        """
        forgotten = sorted(VIDEO_EXTENSIONS & self.members.keys())
        if annotation.video is None and forgotten:
            # Asking about a video without showing it would train the model to guess.
            name = f"{self.key}.{forgotten[0]}"
            raise SkipSample("bad_json", f'{name} stands beside a file without "video": "{forgotten[0]}"')
        return annotation.video


@dataclass(frozen=True)
class ShardIndex:
    """The samples of some shards, in the order of the shards and of their members, and what is no sample.

    Attributes:
        samples, skips: these.
        verified: whether the checksum of every sample is known.
    """

    samples: list[ShardSample]
    skips: list[Skip]
    verified: bool = field(default=False, compare=False)
