"""The samples of WebDataset shards, by the index beside a shard or by a walk over the headers of the tar.

Either way no member is read.  Everything that could be a sample is among the samples or in the list of skips.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from vilamp.credentials import without_credentials
from vilamp.data.index_file import BadIndexError, read_index
from vilamp.data.shard_sample import ShardIndex, ShardSample
from vilamp.data.sources import SourceError, fetch, is_local, size_in_place
from vilamp.data.tar_listing import Member, list_tar
from vilamp.errors import DataError
from vilamp.samples import Skip

log = logging.getLogger(__name__)


SERVERS_ASKED = 8
"""Shards that are looked at or copied at the same time, where they are not local."""


def index_shards(shards: Sequence[str], setting: str, cache_dir: Path | None = None) -> ShardIndex:
    """Index shards.

    Args:
        shards: paths; with ``cache_dir`` also URLs and commands.
        setting: the configuration key that names them, for messages.
        cache_dir: where copies go of those that cannot be read in place.

    Raises:
        DataError: one cannot be reached, or there is no sample in any of them.
        OutputError: ``cache_dir`` cannot be written.
    """
    look = partial(index_shard, cache_dir=cache_dir)
    try:
        if all(map(is_local, shards)):
            indices = list(map(look, shards))
        else:
            with ThreadPoolExecutor(SERVERS_ASKED) as pool:
                indices = list(pool.map(look, shards))
    except SourceError as error:
        raise DataError(f"{setting}: {error}") from error
    walked = [shard for shard, index in zip(shards, indices, strict=True) if not index.verified]
    if walked:
        log.warning(
            "%s: %d of %d shard(s) have no usable index, for example %s: bytes that changed are not noticed as long as "
            "they decode, and samples behind a damaged header are lost as one; `vilamp index` makes an index",
            setting, len(walked), len(shards), without_credentials(walked[0]),
        )  # fmt: skip
    samples = [sample for index in indices for sample in index.samples]
    skips = [skip for index in indices for skip in index.skips]
    if not samples:
        why = "; ".join(f"{count} x {reason}" for reason, count in Counter(skip.reason for skip in skips).items())
        first = f" The first: {skips[0].key or skips[0].shard}: {skips[0].detail}." if skips else ""
        raise DataError(
            f"{setting}: no sample in {len(shards)} shard(s) from {shards[0]} on ({why or 'they are empty'}).{first}"
        )
    return ShardIndex(samples, skips, verified=not walked)


def index_shard(shard: str, cache_dir: Path | None = None) -> ShardIndex:
    """The samples of one shard: those of the index beside it, or, where there is none, those that a walk finds.

    With an index, each of its samples can be read with its own bytes or is skipped when it is read, whatever has become
    of the shard.  A shard of another size than the index says is counted as ``stale_index``: what was added to it is
    not read.  An index that cannot be used is counted as ``bad_index``, and the shard is walked.

    Raises:
        SourceError: a URL or a command does not give the shard.
        OutputError: a copy of it is needed, and ``cache_dir`` cannot be written.
    """
    unusable, missing = [], "there is no index beside it"
    try:
        file = read_index(shard)
    except BadIndexError as error:
        file, missing = None, f"its index cannot be used: {error}"
        unusable = [Skip("", shard, "bad_index", f"{error}; the shard is read without it")]
    there = None if file is None or is_local(shard) else size_in_place(shard)
    missing = missing if file is None else "its server sends files only as a whole"
    copy = _copy(shard, cache_dir, missing) if there is None and not is_local(shard) else ""
    if file is None:
        walked = walk_shard(shard, copy)
        return ShardIndex(walked.samples, [*unusable, *walked.skips])
    samples = [replace(sample, copy=copy) for sample in file.index.samples] if copy else file.index.samples
    index = ShardIndex(samples, list(file.index.skips), verified=True)
    try:
        size = Path(copy or shard).stat().st_size if there is None else there
    except OSError as error:
        index.skips.append(Skip("", shard, "damaged_shard", str(error)))
        return index
    if size != file.size:
        why = (
            f"the shard has {size} bytes, its index says {file.size}: what is not as it was indexed is skipped; "
            f"where the shard is right, `vilamp index --overwrite {shard}`"
        )
        log.warning("%s", without_credentials(f"{shard}: {why}"))
        index.skips.append(Skip("", shard, "stale_index", why))
    return index


def _copy(shard: str, cache_dir: Path | None, missing: str) -> str:
    if cache_dir is None:
        raise SourceError(f"{shard} cannot be read where it is, and no copy of it is made here: {missing}")
    return fetch(shard, cache_dir)


def walk_shard(shard: str, copy: str = "") -> ShardIndex:
    """Index one tar by its headers: every ``<key>.json`` is a sample, with all members named ``<key>.<extension>``.

    For ``a.b.json`` and ``a.b.v1.mp4`` the key is ``a.b`` and the extension ``v1.mp4``: a member belongs to the longest
    key that fits it.  So a dot in a name does no harm, and for names without one the keys are WebDataset's own.  With
    ``copy``, that local file is walked over and read in its place.
    """
    listing = list_tar(copy or shard)
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
    samples = [ShardSample(shard, key, places, copy=copy) for key, places in members.items() if key not in repeated]
    return ShardIndex(samples, skips)


def _stems(name: str) -> list[str]:
    """``dir/a.b.c`` -> ``dir/a.b``, ``dir/a``."""
    folder, slash, base = name.rpartition("/")
    parts = base.split(".")
    return [folder + slash + ".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]
