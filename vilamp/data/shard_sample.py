"""One sample of a shard: where its members lie, and their bytes, verified where a checksum is known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from vilamp.data.annotations import VIDEO_EXTENSIONS, Annotation
from vilamp.data.sources import SourceError, is_local, read_range
from vilamp.data.spool import Spool
from vilamp.data.tar_listing import Member
from vilamp.probe import FileRange, Source
from vilamp.samples import Skip, SkipSample

MAX_MEMBER_BYTES = 4 << 30
"""A larger member is not read: with ``data.frames_in_memory=null`` what a server sends is held in memory."""
PIECE = 1 << 18
"""Bytes that are read at a time where only their checksum is wanted: they stay in the processor's cache."""
TRANSFER = 1 << 24
"""Bytes that a server is asked for at a time where the answer goes into a file."""


def checksum(content: bytes) -> str:
    """128 bits of XXH3 in hex.

    It is for damage, not for malice: whoever can alter a shard can alter the index beside it.  The checksums of the
    standard library are slower than reading from memory, this one is not.
    """
    return xxhash.xxh3_128_hexdigest(content)


def checksum_of(path: str | Path, place: Member) -> tuple[str, int]:
    """The :func:`checksum` of a member of any size, read in pieces, and how many of its bytes are there.

    Raises:
        OSError: the file cannot be read.
    """
    digest, buffer, left = xxhash.xxh3_128(), memoryview(bytearray(min(PIECE, place.size))), place.size
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (pathlib takes a third of the time of a small member)
        file.seek(place.offset)
        while left and (count := file.readinto(buffer[:left])):
            digest.update(buffer[:count])
            left -= count
    return digest.hexdigest(), place.size - left


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
        member = self._member(extension, most)
        try:
            source = read_range(self.copy or self.shard, member.offset, member.size)
        except SourceError as error:
            raise SkipSample("unreachable", f"{self.key}.{extension}: {error}") from error
        except OSError as error:
            raise SkipSample("damaged_shard", f"{self.key}.{extension}: {error}") from error
        self._verify(extension, len(source), lambda: checksum(source))
        return source

    def source(self, extension: str, spool: Spool = Spool()) -> Source:  # noqa: B008
        """One member where it lies, for who reads it piece by piece; what a server sends is where ``spool`` has it.

        Raises:
            SkipSample: as :meth:`read`.
            OutputError: the disk does not take what a server sends.
        """
        path = self.copy or self.shard
        member = self._member(extension, MAX_MEMBER_BYTES)
        if not is_local(path):
            return self._sent(extension, spool) if spool.keeps_in_file(member.size) else self.read(extension)
        try:
            if extension in self.checksums:
                digest, there = checksum_of(path, member)
            else:
                digest, there = "", min(max(os.stat(path).st_size - member.offset, 0), member.size)  # noqa: PTH116
        except OSError as error:
            raise SkipSample("damaged_shard", f"{self.key}.{extension}: {error}") from error
        self._verify(extension, there, lambda: digest)
        return FileRange(path, member.offset, member.size)

    def _sent(self, extension: str, spool: Spool) -> Source:
        """A member that a server sends, in a file; no more than one piece of it is in memory."""
        member, digest = self.members[extension], xxhash.xxh3_128()

        def pieces() -> Iterator[bytes]:
            for start in range(0, member.size, TRANSFER):
                wanted = min(TRANSFER, member.size - start)
                piece = read_range(self.shard, member.offset + start, wanted)
                digest.update(piece)
                yield piece
                if len(piece) < wanted:
                    return  # the shard has become shorter

        try:
            kept = spool.keep(pieces())
        except SourceError as error:
            raise SkipSample("unreachable", f"{self.key}.{extension}: {error}") from error
        self._verify(extension, kept.size, digest.hexdigest)
        return kept

    def _member(self, extension: str, most: int) -> Member:
        member = self.members.get(extension)
        if member is None:
            others = ", ".join(f"{self.key}.{name}" for name in sorted(self.members)[:5])
            raise SkipSample("missing_member", f"no {self.key}.{extension} in the shard; there is {others}")
        if member.size > most:
            raise SkipSample("too_large", f"{self.key}.{extension} has {member.size} bytes, {most} are allowed")
        return member

    def _verify(self, extension: str, there: int, digest: Callable[[], str]) -> None:
        size = self.members[extension].size
        if there != size:
            raise SkipSample("damaged_shard", f"{self.key}.{extension}: {there} of {size} bytes are there")
        if extension in self.checksums and digest() != self.checksums[extension]:
            raise SkipSample("checksum", f"{self.key}.{extension}: the bytes are not those that were indexed")

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
