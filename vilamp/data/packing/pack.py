"""Packing a set: annotations and videos in, shards with indexes and one manifest out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vilamp.data.index_file import MANIFEST, REPORT, IndexFile, LeftOut, index_path, write_atomically
from vilamp.data.locks import locked
from vilamp.data.packing.layouts import Annotations
from vilamp.data.packing.looking import stop_looking
from vilamp.data.packing.parallel import with_progress
from vilamp.data.packing.plan import PlannedShard, plan_samples, plan_shards
from vilamp.data.packing.write import finished, write_shard
from vilamp.data.shard_sample import checksum
from vilamp.errors import DataError

MANIFEST_FORMAT = "vilamp-set/1"


@dataclass(frozen=True)
class Settings:
    """How a set is packed.

    Attributes:
        videos: the folder in which the annotations' paths begin.
        out: the folder of the shards.
        name: shards are ``<name>-000000.tar`` and so on.
        shard_size: bytes of a shard at most.
        max_skip_rate: share of the questions that may be left out.
        workers: processes; 0 packs in this one.
        overwrite: replace shards of an earlier set of this name.
        progress: show a progress bar.
    """

    videos: Path
    out: Path
    name: str = "train"
    shard_size: int = 1 << 30
    max_skip_rate: float = 0.01
    workers: int = 0
    overwrite: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w][\w-]*", self.name):
            raise DataError(f"--name must be of letters, digits, - and _, got {self.name!r}")
        if self.shard_size < 1:
            raise DataError(f"--shard-size must be at least a byte, got {self.shard_size}")
        if not 0 <= self.max_skip_rate <= 1:
            raise DataError(f"--max-skip-rate must be from 0 to 1, got {self.max_skip_rate}")
        if not self.videos.is_dir():
            raise DataError(f"--videos: {self.videos} is no folder")

    def beside(self, suffix: str) -> Path:
        """The manifest or the report of the set."""
        return self.out / f"{self.name}{suffix}"


@dataclass(frozen=True)
class Packed:
    """What became of a set.

    Attributes:
        manifest: as it was written.
        left_out: the questions that were not packed.
        total: questions, with those.
        resumed: shards that were there already.
    """

    manifest: dict[str, Any]
    left_out: list[LeftOut]
    total: int
    resumed: int


def pack(annotations: Annotations, settings: Settings) -> Packed:
    """Write the shards of a set, or those that an interrupted run left to be written.

    Raises:
        DataError: nothing can be packed, too much had to be left out, or the folder holds another set of this name.
    """
    samples, missing = plan_samples(annotations.rows, settings.videos)
    left_out = [*annotations.left_out, *missing]
    total = sum(len(sample.questions) for sample in samples) + sum(entry.questions for entry in left_out)
    shards = plan_shards(samples, settings.name, settings.shard_size)
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
        with locked(settings.beside(".lock")):
            _report(left_out, settings)
            check_skip_rate(left_out, total, settings)
            if not samples:
                raise DataError(f"{settings.videos}: there is nothing to pack")
            _clear(shards, settings)
            done = {shard.name: index for shard in shards if (index := finished(shard, settings.out))}
            resumed = len(done)
            done |= _write([shard for shard in shards if shard.name not in done], settings)
            indices = [done[shard.name] for shard in shards]
            left_out += [entry for index in indices for entry in index.left_out]
            _report(left_out, settings)
            manifest = _manifest(annotations.format, shards, indices, left_out, settings)
            content = json.dumps(manifest, indent=1).encode() + b"\n"
            write_atomically(settings.beside(MANIFEST), content)
    except OSError as error:
        raise DataError(f"--out: {settings.out} cannot be written: {error}") from error
    return Packed(manifest, left_out, total, resumed)


def check_skip_rate(left_out: Sequence[LeftOut], total: int, settings: Settings) -> None:
    """End where more was left out than is allowed.

    Raises:
        DataError: that is so; it tells the first of them.
    """
    lost = sum(entry.questions for entry in left_out)
    if lost > settings.max_skip_rate * total:
        first = left_out[0]
        mend = f"; videos are looked for below --videos {settings.videos}" if first.reason == "missing_file" else ""
        raise DataError(
            f"{lost} of {total} questions cannot be used, --max-skip-rate {settings.max_skip_rate:g} allows "
            f"{int(settings.max_skip_rate * total)}; the first: {first.row}: {first.reason}: {first.detail}. All "
            f"are in {settings.beside(REPORT)}{mend}"
        )


def _write(shards: Sequence[PlannedShard], settings: Settings) -> dict[str, IndexFile]:
    sizes = [sum(sample.tar_bytes() for sample in shard.samples) for shard in shards]
    work = partial(write_shard, videos=settings.videos, out=settings.out)
    try:
        written = with_progress("packing", work, shards, sizes, settings.workers, settings.progress)
        return {shards[number].name: index for number, index in written}
    finally:
        stop_looking()


def _clear(shards: Sequence[PlannedShard], settings: Settings) -> None:
    """Remove what interrupted runs left half-written, and with ``overwrite`` what an earlier set left.

    Raises:
        DataError: there are more shards of this name than the plan has.
    """
    ours = re.compile(rf"{re.escape(settings.name)}-\d{{6}}\.tar")
    # Exactly ours: beside a set "val" another process may just be writing a set "val-hard".
    half = re.compile(rf"{re.escape(settings.name)}(-\d{{6}}\.tar)?(\.[a-z-]+)*\.partial-\d+")
    planned = {shard.name: shard for shard in shards}
    settings.beside(MANIFEST).unlink(missing_ok=True)  # it is there when the set is whole
    for path in sorted(settings.out.iterdir()):
        if half.fullmatch(path.name):
            path.unlink()
        elif ours.fullmatch(path.name) and settings.overwrite:
            if not _is_current(planned.get(path.name), settings.out):
                path.unlink()
                Path(index_path(path)).unlink(missing_ok=True)
        elif ours.fullmatch(path.name) and path.name not in planned:
            raise DataError(
                f"{path} is there already, and this set has {len(shards)} shard(s) only: a pattern such as "
                f"{settings.name}-*.tar would mix two sets. Take another --out or --name, or --overwrite it"
            )


def _is_current(shard: PlannedShard | None, out: Path) -> bool:
    try:
        return shard is not None and finished(shard, out) is not None
    except DataError:
        return False


def _report(left_out: Sequence[LeftOut], settings: Settings) -> None:
    content = "".join(json.dumps(asdict(entry)) + "\n" for entry in left_out).encode()
    write_atomically(settings.beside(REPORT), content)


def _manifest(
    form: str,
    shards: Sequence[PlannedShard],
    indices: Sequence[IndexFile],
    left_out: Sequence[LeftOut],
    settings: Settings,
) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for shard, index in zip(shards, indices, strict=True):
        packed = {sample.key for sample in index.index.samples}
        entries.append(
            {
                "shard": shard.name,
                "bytes": index.size,
                "samples": len(packed),
                "questions": sum(len(sample.questions) for sample in shard.samples if sample.key in packed),
                "seconds": round(sum(sample.seconds or 0.0 for sample in index.index.samples), 3),
                "index": index.digest,
            }
        )
    totals = {name: sum(entry[name] for entry in entries) for name in ("bytes", "samples", "questions", "seconds")}
    return {
        "format": MANIFEST_FORMAT,
        "annotations": form,
        "digest": checksum("\n".join(entry["index"] for entry in entries).encode()),
        "totals": {**totals, "seconds": round(totals["seconds"], 3)},
        "left_out": sum(entry.questions for entry in left_out),
        "shards": entries,
    }
