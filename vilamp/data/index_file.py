"""The index beside a shard: where its samples lie, their checksums and lengths (format: ``data/README.md``).

JSON lines: a head, a line for each sample and each thing that is none, and the checksum of all that.  With it nothing
has to be searched for in the tar, so that damage costs the samples that it hits and no others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from vilamp.data.bounded_json import parse_json
from vilamp.data.shard_sample import ShardIndex, ShardSample, checksum
from vilamp.data.sources import PIPE, partial_path, read_whole
from vilamp.data.tar_listing import BLOCK, Member, is_safe_name
from vilamp.samples import Skip

SUFFIX = ".index.jsonl"
MANIFEST, REPORT = ".manifest.json", ".left-out.jsonl"
"""How the names of what else packing leaves end: the list of a set's shards, and that of what is not in them."""
LEFT_BY_PACKING = (SUFFIX, MANIFEST, REPORT)
FORMAT = "vilamp-index/1"
MAX_BYTES = 1 << 28
"""Of an index, which makes some 700,000 samples; a larger one is not read."""
MAX_SECONDS = 10**9
MAX_TEXT = 10_000
"""Characters of any text in it."""


class BadIndexError(Exception):
    """There is an index that cannot be used."""


@dataclass(frozen=True)
class LeftOut:
    """Questions that were not packed.

    Attributes:
        row: where they stand, ``<file>:<number of the row, from 1>``.
        video: as the row spells it.
        questions: how many.
        reason, detail: as those of a :class:`~vilamp.samples.Skip`.
    """

    row: str
    video: str
    questions: int
    reason: str
    detail: str


@dataclass(frozen=True)
class IndexFile:
    """What an index says.

    Attributes:
        size: bytes of the shard.
        index: its samples, and what in it is no sample.
        plan: digest of what was to be packed into it; empty where others wrote the shard.
        left_out: what was to be packed and could not be used.
        digest: checksum of the file; empty before it is written.
    """

    size: int
    index: ShardIndex
    plan: str = ""
    left_out: tuple[LeftOut, ...] = ()
    digest: str = field(default="", compare=False)


def index_path(shard: str | Path) -> str:
    """Where the index of a shard lies; of a web address, what stands behind its ``?`` stays there."""
    address, mark, query = str(shard).partition("?") if str(shard).startswith("http") else (str(shard), "", "")
    return f"{address}{SUFFIX}{mark}{query}"


def to_bytes(file: IndexFile) -> bytes:
    """The content of an index file; the same for the same values."""
    head = {"format": FORMAT, "bytes": file.size, "samples": len(file.index.samples), "plan": file.plan}
    lines: list[dict[str, Any]] = [head]
    for sample in file.index.samples:
        members = {
            extension: {"offset": place.offset, "size": place.size, "xxh3": sample.checksums[extension]}
            for extension, place in sample.members.items()
        }
        lines.append({"sample": sample.key, "seconds": sample.seconds, "members": members})
    lines += [{"skip": skip.key, "reason": skip.reason, "detail": skip.detail} for skip in file.index.skips]
    lines += [{"left_out": asdict(entry)} for entry in file.left_out]
    body = b"".join(_line(line) for line in lines)
    return body + _line({"digest": checksum(body)})


def _line(fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # The name of a file may be no text; as an escape it is JSON, and comes back as it was.
    return text.encode(errors="backslashreplace") + b"\n"


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that it is whole and on the disk, or not there."""
    partial = partial_path(path)
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_index(shard: str) -> IndexFile | None:
    """Read the index of a shard, None where there is none.  The shard itself is not looked at.

    Raises:
        BadIndexError: too large, damaged, or not an index.
    """
    if shard.startswith(PIPE):
        return None
    try:
        content = read_whole(index_path(shard), MAX_BYTES + 1)
    except OSError as error:
        raise BadIndexError(str(error)) from error
    return None if content is None else parse_index(content, shard)


def parse_index(content: bytes, shard: str) -> IndexFile:
    """What :func:`to_bytes` wrote.

    Raises:
        BadIndexError: as :func:`read_index`.
    """
    if len(content) > MAX_BYTES:
        raise BadIndexError(f"the index has more than {MAX_BYTES} bytes")
    body, _, last = content.removesuffix(b"\n").rpartition(b"\n")
    try:
        digest = _object(parse_json(last)).get("digest")
        if digest != checksum(body + b"\n"):
            raise BadIndexError("the index is damaged or cut off: its checksum is not that of its content")
        head, *lines = (_object(parse_json(line)) for line in body.split(b"\n"))
        if head.get("format") != FORMAT:
            raise BadIndexError(f"the format is {str(head.get('format'))[:40]!r}, {FORMAT!r} is read")
        size = _whole(head, "bytes")
        samples = list(_samples(lines, shard, size))
        if len(samples) != _whole(head, "samples"):
            raise BadIndexError(f"{len(samples)} samples are listed, the head says {head['samples']}")
        skips = [Skip(_text(f, "skip"), shard, _text(f, "reason"), _text(f, "detail")) for f in lines if "skip" in f]
        left_out = tuple(_left_out(_object(fields["left_out"])) for fields in lines if "left_out" in fields)
        return IndexFile(size, ShardIndex(samples, skips), _text(head, "plan"), left_out, digest)
    except ValueError as error:
        raise BadIndexError(str(error)[:200]) from error


def _samples(lines: Iterable[dict[str, Any]], shard: str, size: int) -> Iterator[ShardSample]:
    keys: set[str] = set()
    places: list[tuple[int, int]] = []
    for fields in lines:
        if "sample" not in fields:
            continue
        key = _text(fields, "sample")
        if not is_safe_name(key) or key in keys:
            raise ValueError(f"{ascii(key)[:80]} is no name of a sample, or comes twice")
        keys.add(key)
        members, checksums = {}, {}
        for extension, entry in _object(fields.get("members")).items():
            if not is_safe_name(f"{key}.{extension}") or "/" in extension:
                raise ValueError(f"{ascii(extension)[:80]} is no extension")
            members[extension] = Member(_whole(_object(entry), "offset"), _whole(entry, "size"))
            checksums[extension] = _text(entry, "xxh3")
        if "json" not in members:
            raise ValueError(f"{key} has no json")
        places += [(place.offset, place.offset + place.size) for place in members.values()]
        yield ShardSample(shard, key, members, checksums, _seconds(fields.get("seconds")))
    _check_places(places, size)


def _check_places(places: Sequence[tuple[int, int]], size: int) -> None:
    """Members that overlap would give one sample the bytes of another."""
    ordered = sorted(places)
    for (_, end), (start, _) in pairwise(ordered):
        if start < end + BLOCK:  # its header lies between them
            raise ValueError(f"two members overlap at byte {start}")
    if ordered and (ordered[0][0] < BLOCK or ordered[-1][1] > size):
        raise ValueError(f"a member lies outside of the {size} bytes of the shard")


def _left_out(fields: dict[str, Any]) -> LeftOut:
    texts = [_text(fields, name) for name in ("row", "video", "reason", "detail")]
    return LeftOut(texts[0], texts[1], _whole(fields, "questions"), texts[2], texts[3])


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"an object should stand where {repr(value)[:80]} does")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{name} must be a text of at most {MAX_TEXT} characters, got {repr(value)[:80]}")
    return value


def _whole(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"{name} must be a whole number, got {repr(value)[:80]}")
    return value


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"seconds must be a number from 0 on, got {repr(value)[:80]}")
    return float(value)
