"""The samples of WebDataset shards: which there are, and the bytes of one.

An index is made from the tar headers; no member is read.  Everything that could be a sample is either in the index or
in its list of skips.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vilamp.data.tar_listing import Member, list_tar
from vilamp.errors import DataError
from vilamp.samples import Skip, SkipSample

MAX_MEMBER_BYTES = 4 << 30
"""A larger member is not read: a video is held in memory while it is decoded."""


@dataclass(frozen=True, slots=True)
class ShardSample:
    """One ``<key>.json`` of a shard and what stands beside it.

    Attributes:
        shard: path of the tar.
        key: the member's name without ``.json``.
        members: extension (``json``, ``mp4`` ...) -> place.
    """

    shard: str
    key: str
    members: dict[str, Member]

    def read(self, extension: str, most: int = MAX_MEMBER_BYTES) -> bytes:
        """The bytes of one member, of which there may be ``most``.

        Raises:
            SkipSample: ``missing_member``, ``too_large``, or ``damaged_shard`` where the file has changed since.
        """
        member = self.members.get(extension)
        if member is None:
            others = ", ".join(f"{self.key}.{name}" for name in sorted(self.members)[:5])
            raise SkipSample("missing_member", f"no {self.key}.{extension} in the shard; there is {others}")
        if member.size > most:
            raise SkipSample("too_large", f"{self.key}.{extension} has {member.size} bytes, {most} are allowed")
        try:
            with Path(self.shard).open("rb") as file:
                file.seek(member.offset)
                source = file.read(member.size)
        except OSError as error:
            raise SkipSample("damaged_shard", f"{self.key}.{extension}: {error}") from error
        if len(source) != member.size:
            raise SkipSample("damaged_shard", f"{self.key}.{extension}: {len(source)} of {member.size} bytes are there")
        return source


@dataclass(frozen=True)
class ShardIndex:
    """The samples of some shards, in the order of the shards and of their members, and what is no sample."""

    samples: list[ShardSample]
    skips: list[Skip]


def index_shards(shards: Sequence[str], setting: str) -> ShardIndex:
    """Index shards.

    Raises:
        DataError: there is no sample in any of them.
    """
    indices = [index_shard(shard) for shard in shards]
    samples = [sample for index in indices for sample in index.samples]
    skips = [skip for index in indices for skip in index.skips]
    if not samples:
        why = "; ".join(f"{count} x {reason}" for reason, count in Counter(skip.reason for skip in skips).items())
        first = f" The first: {skips[0].key or skips[0].shard}: {skips[0].detail}." if skips else ""
        raise DataError(
            f"{setting}: no sample in {len(shards)} shard(s) from {shards[0]} on ({why or 'they are empty'}).{first}"
        )
    return ShardIndex(samples, skips)


def index_shard(shard: str) -> ShardIndex:
    """Index one tar: every ``<key>.json`` is a sample, with all members named ``<key>.<extension>``.

    For ``a.b.json`` and ``a.b.v1.mp4`` the key is ``a.b`` and the extension ``v1.mp4``: a member belongs to the longest
    key that fits it.  So a dot in a name does no harm, and for names without one the keys are WebDataset's own.
    """
    listing = list_tar(shard)
    skips = [Skip(name, shard, reason, detail) for name, reason, detail in listing.refused]
    if listing.damage is not None:
        skips.append(Skip("", shard, "damaged_shard", f"{listing.damage}; what comes behind is lost"))
    members: dict[str, dict[str, Member]] = {
        name.removesuffix(".json"): {} for name, _ in listing.members if name.endswith(".json")
    }
    repeated: dict[str, str] = {}
    orphans: defaultdict[str, list[str]] = defaultdict(list)
    for name, member in listing.members:
        if "." not in name.rpartition("/")[2]:
            skips.append(Skip(name, shard, "bad_name", "has no extension, so that it belongs to no sample"))
            continue
        key = next((stem for stem in _stems(name) if stem in members), None)
        if key is None:
            orphans[_stems(name)[-1]].append(name)
            continue
        extension = name[len(key) + 1 :]
        if extension in members[key]:
            repeated[key] = name
        members[key][extension] = member
    for key, name in repeated.items():
        skips.append(
            Skip(key, shard, "duplicate_key", f"{name} is there more than once, nobody knows what belongs to it")
        )
    for key, names in orphans.items():
        skips.append(Skip(key, shard, "missing_member", f"no {key}.json for {', '.join(names[:5])}"))
    samples = [ShardSample(shard, key, places) for key, places in members.items() if key not in repeated]
    return ShardIndex(samples, skips)


def _stems(name: str) -> list[str]:
    """``dir/a.b.c`` -> ``dir/a.b``, ``dir/a``."""
    folder, slash, base = name.rpartition("/")
    parts = base.split(".")
    return [folder + slash + ".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]
