"""Verifying shards: that they are whole, as they were indexed, and that every sample can be used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from vilamp.data.bounded_json import parse_json
from vilamp.data.frame_reader import FrameReader
from vilamp.data.frames import FrameSettings
from vilamp.data.index_file import MANIFEST, BadIndexError, IndexFile, read_index
from vilamp.data.isolation import USUAL
from vilamp.data.packing.indexing import usable
from vilamp.data.packing.looking import stop_looking
from vilamp.data.packing.pack import MANIFEST_FORMAT
from vilamp.data.packing.parallel import with_progress
from vilamp.data.patterns import expand_patterns
from vilamp.data.shard_sample import ShardSample
from vilamp.data.shards import index_shard, walk_shard
from vilamp.data.sources import SourceError, is_local
from vilamp.data.spool import IN_MEMORY_GIB, Spool
from vilamp.disk import open_plain
from vilamp.errors import DataError
from vilamp.probe import MAX_FRAMES
from vilamp.samples import Skip, SkipSample
from vilamp.video import VideoDecoder

MAX_MANIFEST_BYTES = 1 << 26


@dataclass(frozen=True)
class Decoding:
    """How all frames of a video are decoded.

    Attributes:
        decoder: its class, of which each process builds one.
        seconds: that one video may take.
    """

    decoder: type[VideoDecoder]
    seconds: float


@dataclass
class Verdict:
    """What is in some shards and what is wrong with them.

    Attributes:
        samples, questions, seconds: of those that can be used.
        problems: everything else.
    """

    samples: int = 0
    questions: int = 0
    seconds: float = 0.0
    problems: list[Skip] = field(default_factory=list)


def shards_and_manifests(paths: Sequence[str]) -> tuple[list[str], list[Path]]:
    """The shards and manifests that folders and patterns name.

    Raises:
        DataError: there are none.
    """
    shards: list[str] = []
    manifests: list[Path] = []
    for path in paths:
        if Path(path).is_dir():
            shards += sorted(str(found) for found in Path(path).glob("*.tar"))
            manifests += sorted(Path(path).glob(f"*{MANIFEST}"))
        elif path.endswith(MANIFEST):
            manifests.append(Path(path))
            shards += sorted(map(str, _shards_beside(Path(path))))
        else:
            shards += expand_patterns(path, "--check", remote=True, allow_pipe=True)
    if not shards and not manifests:
        raise DataError(f"there is no shard (*.tar) in {', '.join(paths)}")
    return list(dict.fromkeys(shards)), manifests


def check_shards(
    shards: Sequence[str], decoding: Decoding | None = None, workers: int = 0, progress: bool = False
) -> Verdict:
    """Read all of some shards: headers, every member, every annotation, and every video.

    Args:
        shards: paths, or URLs of shards with an index, by which alone they are read.
        decoding: None decodes nothing, so that of a video only the packets are read.
        workers: processes; with fewer than two all is read by this one.
        progress: show a progress bar.

    Raises:
        DataError: one of the processes died.
        OutputError: the disk does not take the frames of a video.
    """
    looks = [_look(shard) for shard in shards]
    jobs = [sample for samples, _ in looks for sample in samples]
    sizes = [sum(member.size for member in sample.members.values()) for sample in jobs]
    work = partial(_check_sample, decoding=decoding)
    try:
        found = dict(with_progress("checking", work, jobs, sizes, workers, progress))
    finally:
        _reader.cache_clear()  # with which the process beside this one ends
        stop_looking()
    verdict = Verdict()
    results = (found[number] for number in range(len(jobs)))
    for samples, problems in looks:
        for result in islice(results, len(samples)):
            if isinstance(result, Skip):
                problems.append(result)
                continue
            questions, seconds = result
            verdict.samples += 1
            verdict.questions += questions
            verdict.seconds += seconds or 0.0
        verdict.problems += dict.fromkeys(problems)
    return verdict


def _look(shard: str) -> tuple[list[ShardSample], list[Skip]]:
    """The samples of a shard, of which nothing is read, and what is wrong with the shard as a whole."""
    if not is_local(shard):
        try:
            index = index_shard(shard)  # makes no copy, and runs no command
        except SourceError as error:
            return [], [Skip("", shard, "unreachable", str(error))]
        return index.samples, index.skips
    walked = walk_shard(shard)
    problems = list(walked.skips)
    try:
        file = read_index(shard)
    except BadIndexError as error:
        problems.append(Skip("", shard, "bad_index", str(error)))
        return walked.samples, problems
    if file is None:
        problems.append(Skip("", shard, "no_index", "changed bytes cannot be noticed; `vilamp index` makes one"))
        return walked.samples, problems
    return file.index.samples, [*problems, *_differences(file, walked.samples, shard)]


def _check_sample(sample: ShardSample, decoding: Decoding | None) -> tuple[int, float | None] | Skip:
    reader = None if decoding is None else _reader(decoding)
    try:
        questions, seconds, damage = usable(sample, Spool(IN_MEMORY_GIB), reader)
        if damage:
            raise SkipSample("decode", damage)
    except SkipSample as skip:
        return Skip(sample.key, sample.shard, skip.reason, skip.detail.removeprefix(f"{sample.key}: "))
    return questions, seconds


@cache
def _reader(decoding: Decoding) -> FrameReader:
    """One for all samples of this process, because the process beside it takes time to start."""
    # All frames, and small ones, because nobody looks at them.
    every_frame = FrameSettings(fps=10_000.0, max_frames=MAX_FRAMES, size=8)
    budget = replace(USUAL, seconds=decoding.seconds, seconds_from="--decode-timeout")
    return FrameReader(decoding.decoder(), every_frame, budget, Spool(IN_MEMORY_GIB))


def _differences(file: IndexFile, walked: Sequence[ShardSample], shard: str) -> Iterator[Skip]:
    """Where an index and the headers of the tar do not say the same."""
    size = Path(shard).stat().st_size if Path(shard).is_file() else 0
    if size != file.size:
        yield Skip("", shard, "stale_index", f"the shard has {size} bytes, its index says {file.size}")
    there = {sample.key: sample.members for sample in walked}
    indexed = {sample.key: sample.members for sample in file.index.samples}
    for key in sorted(there.keys() | indexed.keys()):
        if key not in indexed:
            yield Skip(key, shard, "stale_index", "is in the shard and not in its index")
        elif there.get(key) != indexed[key]:
            yield Skip(key, shard, "stale_index", "is not where its index says")


def check_manifest(path: Path) -> list[Skip]:
    """Compare a manifest with the shards beside it."""

    def wrong(detail: str) -> Skip:
        return Skip("", str(path), "manifest", detail)

    try:
        manifest = _read(path)
        named = {str(entry["shard"]): entry for entry in manifest["shards"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [wrong(f"cannot be read: {type(error).__name__}: {str(error)[:200]}")]
    problems = []
    for name, entry in named.items():
        shard = path.parent / name
        if Path(name).name != name:
            problems.append(wrong(f"{name[:100]!r} is no name of a shard beside it"))
        elif not os.path.isfile(shard):  # noqa: PTH113  (pathlib raises where a name is too long for any)
            problems.append(wrong(f"{name} is not there"))
        elif shard.stat().st_size != entry.get("bytes"):
            problems.append(wrong(f"{name} has {shard.stat().st_size} bytes, the manifest says {entry.get('bytes')}"))
        else:
            try:
                index = read_index(str(shard))
            except BadIndexError:
                continue  # told with the shard
            if index is None or index.digest != entry.get("index"):
                problems.append(wrong(f"the index of {name} is not the one of this set"))
    extra = {shard.name for shard in _shards_beside(path)} - named.keys()
    return problems + [wrong(f"{name} is there and no part of the set") for name in sorted(extra)]


def _shards_beside(manifest: Path) -> Iterator[Path]:
    """Those that have the names of its set."""
    prefix = manifest.name.removesuffix(MANIFEST)
    return (shard for shard in manifest.parent.glob("*.tar") if shard.name[: -len("-000000.tar")] == prefix)


def _read(path: Path) -> dict[str, Any]:
    with open_plain(path) as file:
        content = file.read(MAX_MANIFEST_BYTES + 1)
    if len(content) > MAX_MANIFEST_BYTES:
        raise ValueError(f"more than {MAX_MANIFEST_BYTES} bytes")
    manifest = parse_json(content)
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT:
        raise ValueError(f"the format is {json.dumps(manifest)[:60]}, {MANIFEST_FORMAT} is read")
    return manifest
