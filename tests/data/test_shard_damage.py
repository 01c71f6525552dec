"""Damaged and hostile shards: nothing lost in silence, nothing paired wrongly, nothing executed, nothing escapes."""

from __future__ import annotations

import io
import json
import pickle
import random
import tarfile
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tars import annotation, write_tar

from vilamp.cli import index as index_command
from vilamp.cli import inspect as inspect_command
from vilamp.cli import pack as pack_command
from vilamp.data.dataset import LoadedSample, VideoDataset
from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.data.index_file import index_path, to_bytes
from vilamp.data.order import Place
from vilamp.data.packing.indexing import index_foreign_shard
from vilamp.data.shards import index_shard, walk_shard
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.samples import SkipSample
from vilamp.testing.barcodes import read_barcodes, write_video

SAMPLES = 12
BLOCK = tarfile.BLOCKSIZE


def _members(seed: int) -> dict[str, bytes]:
    rng = random.Random(seed)
    members = {}
    for number in range(SAMPLES):
        folder = rng.choice(("", "x/", "long" * 30 + "/"))
        members[f"{folder}k{number}.json"] = annotation(f"{number}?")
        members[f"{folder}k{number}.mp4"] = rng.randbytes(rng.randrange(3000))
    return members


def _flip(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3, 200))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _remove(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.choice((1, BLOCK, 3 * BLOCK, 5000))]


def _insert(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    content[start:start] = rng.randbytes(rng.choice((1, BLOCK, 5000)))


def _wipe(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content) // BLOCK) * BLOCK
    length = min(rng.choice((BLOCK, 4 * BLOCK)), len(content) - start)
    content[start : start + length] = bytes(length)


def _swap(content: bytearray, rng: random.Random) -> None:
    """Blocks change places: headers stay valid, and stand before the bytes of others."""
    one, other = (rng.randrange(len(content) // BLOCK) * BLOCK for _ in range(2))
    a, b = content[one : one + BLOCK], content[other : other + BLOCK]
    content[one : one + BLOCK], content[other : other + BLOCK] = b, a


def _append(content: bytearray, rng: random.Random) -> None:
    content += content[: rng.randrange(len(content))]


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [_flip, _cut, _remove, _insert, _wipe, _swap, _append]


def _mutate_and_read(folder: Path, count: int, first: int = 0) -> Counter[str]:
    """Each mutated shard with the index of the whole one: every sample is its own or quarantined."""
    told: Counter[str] = Counter()
    for number in range(first, first + count):
        rng = random.Random(number)
        members = _members(number % 50)
        shard = write_tar(
            folder / "x.tar", members.items(), format=rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
        )
        Path(index_path(shard)).write_bytes(to_bytes(index_foreign_shard(str(shard))[0]))
        content = bytearray(shard.read_bytes())
        mutation = MUTATIONS[number % len(MUTATIONS)]
        mutation(content, rng)
        shard.write_bytes(content)
        index = index_shard(str(shard))
        assert index.verified
        emitted = quarantined = 0
        for sample in index.samples:
            try:
                pair = sample.read("json"), sample.read("mp4")
            except SkipSample as skip:
                quarantined += 1
                told[skip.reason] += 1
                continue
            assert pair == (members[f"{sample.key}.json"], members[f"{sample.key}.mp4"]), f"{number}: {sample.key}"
            emitted += 1
        assert emitted + quarantined == SAMPLES
        assert len(content) == index_size(shard) or [skip.reason for skip in index.skips] == ["stale_index"]
        told["emitted"] += emitted
        walk_shard(str(shard))  # without an index there is no such promise, but no crash either
    return told


def index_size(shard: Path) -> int:
    """What the index says of the shard's size."""
    head: dict[str, int] = json.loads(Path(index_path(shard)).read_bytes().partition(b"\n")[0])
    return head["bytes"]


def test_of_mutated_shards_every_sample_is_emitted_as_it_was_or_quarantined(tmp_path: Path) -> None:
    told = _mutate_and_read(tmp_path, 105)
    assert told.total() == 105 * SAMPLES
    assert min(told[reason] for reason in ("emitted", "checksum", "damaged_shard")) > 20, "the mutations do their work"


@pytest.mark.soak
def test_of_two_thousand_mutated_shards_too(tmp_path: Path) -> None:
    assert _mutate_and_read(tmp_path, 2000, first=1000).total() == 2000 * SAMPLES


def test_the_dataset_of_mutated_shards_pairs_no_question_with_another_video(tmp_path: Path) -> None:
    clips = [write_video(list(range(seconds)), Fraction(1, 1)) for seconds in range(2, 8)]
    members = {f"{i}.{name}": content for i, clip in enumerate(clips) for name, content in
               (("json", annotation(f"{i}?")), ("mp4", clip))}  # fmt: skip
    shard = write_tar(tmp_path / "x.tar", members.items())
    Path(index_path(shard)).write_bytes(to_bytes(index_foreign_shard(str(shard))[0]))
    whole = shard.read_bytes()
    for number, mutation in enumerate(MUTATIONS * 2):
        content = bytearray(whole)
        mutation(content, random.Random(number))
        shard.write_bytes(content)
        dataset = VideoDataset(
            index_shard(str(shard)).samples, VideoReader(PyAVDecoder(), FrameSettings(1.0, 16, 80)), seed=0
        )
        assert len(dataset) == len(clips)
        for place in range(len(dataset)):
            loaded = dataset[Place(place, 0)]
            if isinstance(loaded, LoadedSample):
                assert loaded.video is not None
                asked = int(loaded.questions[0].question.question[:-1])
                assert read_barcodes(loaded.video.frames.numpy()) == list(range(asked + 2))


class _Trap:
    """Unpickled, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.write_text, (self.target, "executed")


def _hostile(tmp_path: Path) -> Path:
    """A shard with one good sample among traps of every kind."""
    trap = pickle.dumps(_Trap(tmp_path / "executed"))
    code = f"open({str(tmp_path / 'executed')!r}, 'w')".encode()
    path = tmp_path / "in" / "x.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, content: bytes = b"", **fields: Any) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(content))

        add("good.json", annotation("good?", video=None))
        for extension in ("pickle", "pkl", "pyd", "pth", "pt", "npy", "npz"):
            add(f"good.{extension}", trap)
        add("good.py", code)
        add("p.json", annotation(video="pickle"))
        add("p.pickle", trap)
        add("../escaped.json", annotation(video=None))
        add("../escaped.mp4", b"x")
        add(str(tmp_path / "absolute.json"), annotation(video=None))
        add("link.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("sparse.json", annotation())
        sparse = {"GNU.sparse.major": "1", "GNU.sparse.name": "sparse.mp4", "GNU.sparse.realsize": str(1 << 32)}
        add("GNUSparseFile.1/sparse.mp4", b"0\n0\n", pax_headers=sparse)
        add("playlist.json", annotation())
        add("playlist.mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
        add("deep.json", b'{"questions": ' + b"[" * 100_000)
    return path


def test_traps_are_not_executed_and_nothing_leaves_the_folder(tmp_path: Path, capsys: Any) -> None:
    shard = str(_hostile(tmp_path))
    for indexed in (False, True):
        if indexed:
            assert index_command.main([shard]) == 0
        assert inspect_command.main([shard]) == 0
        assert pack_command.main(["--check", shard, "--workers", "0"]) == 1
        index = index_shard(shard)
        reasons = Counter(skip.reason for skip in index.skips)
        assert reasons == {"bad_name": 3, "not_a_file": 2}
        dataset = VideoDataset(index.samples, VideoReader(PyAVDecoder(), FrameSettings(1.0, 4, 32)), seed=0)
        loaded = {sample.key: dataset[Place(i, 0)] for i, sample in enumerate(index.samples)}
        assert [key for key, sample in loaded.items() if isinstance(sample, LoadedSample)] == ["good"]
        bad = {key: sample.reason for key, sample in loaded.items() if not isinstance(sample, LoadedSample)}
        assert bad == {"p": "decode", "sparse": "missing_member", "playlist": "decode", "deep": "bad_json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"], "nothing was written outside"
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["x.tar", "x.tar.index.jsonl"]


@pytest.mark.parametrize("declared", ["8589934591", "-1", "9" * 30])
def test_a_declared_size_is_not_believed(tmp_path: Path, declared: str) -> None:
    """A size beyond the end of the file is damage, before a byte is set aside for it."""
    shard = tmp_path / "x.tar"
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.json")
        info.pax_headers = {"size": declared}
        tar.addfile(info)
    index = index_shard(str(shard))
    assert index.samples == []
    assert [skip.reason for skip in index.skips] == ["damaged_shard"]
