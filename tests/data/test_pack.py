"""Packing: what comes out is what went in, always the same bytes, and a killed run goes on."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from vilamp.cli import pack
from vilamp.data.annotations import parse_annotation
from vilamp.data.dataset import LoadedSample, VideoDataset
from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.data.index_file import read_index
from vilamp.data.order import Place
from vilamp.data.packing import write
from vilamp.data.patterns import expand_patterns
from vilamp.data.shards import index_shards, walk_shard
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.probe import FileRange, probe_video
from vilamp.testing.barcodes import write_video

SECONDS = {"a.mp4": 2, "sub/b.mp4": 3, "sub/c.mp4": 5, "d.mp4": 4}


@pytest.fixture(scope="module")
def clips() -> dict[str, bytes]:
    """Videos of different lengths, a frame a second."""
    return {name: write_video(list(range(seconds)), Fraction(1, 1)) for name, seconds in SECONDS.items()}


def _fill(folder: Path, clips: dict[str, bytes]) -> Path:
    for name, content in clips.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def source(tmp_path: Path, clips: dict[str, bytes]) -> Path:
    """``videos/`` and ``q.json`` with two questions about each of them."""
    _fill(tmp_path / "videos", clips)
    rows = [_conversation(name, f"{name} {i}?") for i in range(2) for name in clips]
    (tmp_path / "q.json").write_text(json.dumps(rows))
    return tmp_path


def _conversation(video: str, question: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": "yes"}]
    return {"video": video, "query": "a cup", "conversations": turns}


def _arguments(root: Path, out: str, *more: str, questions: str = "q.json") -> list[str]:
    paths = [str(root / questions), "--videos", str(root / "videos"), "--out", str(root / out)]
    return [*paths, "--shard-size", "8K", "--workers", "0", *more]


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".lock"}


def _asked(folder: Path) -> dict[bytes, list[str]]:
    """The questions about each video, by the bytes of the video."""
    index = index_shards(expand_patterns(f"{folder}/*.tar", "data.train"), "data.train")
    assert index.verified and index.skips == []
    found = {}
    for sample in index.samples:
        annotation = parse_annotation(sample.read("json"))
        assert annotation.video is not None
        found[sample.read(annotation.video)] = [question.question for question in annotation.questions]
    assert len(found) == len(index.samples), "each video is there once"
    return found


def test_the_dataset_emits_the_same_questions_and_the_same_videos(source: Path, clips: dict[str, bytes]) -> None:
    assert pack.main(_arguments(source, "out")) == 0
    assert _asked(source / "out") == {clip: [f"{name} 0?", f"{name} 1?"] for name, clip in clips.items()}
    index = index_shards(expand_patterns(f"{source}/out/*.tar", "x"), "x")
    dataset = VideoDataset(index.samples, VideoReader(PyAVDecoder(), FrameSettings(1.0, 16, 32)), seed=0)
    for number in range(len(dataset)):
        loaded = dataset[Place(number, 0)]
        assert isinstance(loaded, LoadedSample) and loaded.video is not None
        name = f"{loaded.video.key}.mp4"
        assert len(loaded.video) == SECONDS[name]
        assert index.samples[number].seconds == pytest.approx(probe_video(clips[name]).end, abs=1e-3)
        assert [asked.question.query for asked in loaded.questions] == ["a cup"] * 2


def test_multiple_choice_rows(source: Path, clips: dict[str, bytes]) -> None:
    rows = ["video,question,a0,a1,answer", *(f"{Path(name).with_suffix('')},What?,red,{name},1" for name in clips)]
    (source / "q.csv").write_text("\n".join(rows))
    assert pack.main(_arguments(source, "out", questions="q.csv")) == 0
    asked = {clip: ["What?\nA. red\nB. " + name + "\nAnswer with the letter of the right option."]
             for name, clip in clips.items()}  # fmt: skip
    assert _asked(source / "out") == asked


def test_a_folder_of_json_files_beside_videos(tmp_path: Path, clips: dict[str, bytes]) -> None:
    for folder in ("0_30_s", "30_60_s"):
        chosen = {name: clip for name, clip in clips.items() if (SECONDS[name] > 3) == (folder == "30_60_s")}
        _fill(tmp_path / "set" / folder / "academic", chosen)
        for kind in ("oe", "mc"):
            rows = [_conversation(f"academic/{name}", f"{kind} {name}?") for name in chosen]
            (tmp_path / "set" / folder / f"{kind}.json").write_text(json.dumps(rows))
    assert pack.main([str(tmp_path / "set"), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    assert _asked(tmp_path / "out") == {clip: [f"mc {name}?", f"oe {name}?"] for name, clip in clips.items()}


def test_a_set_packed_into_the_folder_of_its_source_is_no_source(tmp_path: Path, clips: dict[str, bytes]) -> None:
    _fill(tmp_path / "set/videos", clips)
    (tmp_path / "set/q.json").write_text(json.dumps([_conversation(f"videos/{name}", "?") for name in clips]))
    for out in ("set/packed", "set"):
        for _ in range(2):
            assert pack.main([str(tmp_path / "set"), "--out", str(tmp_path / out), "--workers", "0"]) == 0
        assert _asked(tmp_path / out) == {clip: ["?"] for clip in clips.values()}


def test_the_same_bytes_whatever_the_workers_the_place_and_the_time(source: Path, clips: dict[str, bytes]) -> None:
    assert pack.main(_arguments(source, "one")) == 0
    moved = source / "moved"
    _fill(moved / "videos", clips)
    (moved / "q.json").write_bytes((source / "q.json").read_bytes())
    os.utime(moved / "videos/a.mp4", (1, 1))
    assert pack.main(_arguments(moved, "two", "--workers", "2")) == 0
    one = _content(source / "one")
    assert one == _content(moved / "two")
    assert len([name for name in one if name.endswith(".tar")]) > 1


def test_the_index_is_what_a_walk_finds_and_the_manifest_counts_it(source: Path, clips: dict[str, bytes]) -> None:
    assert pack.main(_arguments(source, "out")) == 0
    shards = sorted((source / "out").glob("*.tar"))
    for shard in shards:
        file, walked = read_index(str(shard)), walk_shard(str(shard))
        assert file is not None and file.size == shard.stat().st_size
        assert [(s.key, s.members) for s in file.index.samples] == [(s.key, s.members) for s in walked.samples]
        assert walked.skips == []
    manifest = json.loads((source / "out/train.manifest.json").read_text())
    assert [entry["shard"] for entry in manifest["shards"]] == [shard.name for shard in shards]
    assert manifest["totals"]["samples"] == len(clips)
    assert manifest["totals"]["questions"] == 2 * len(clips)
    assert manifest["totals"]["bytes"] == sum(shard.stat().st_size for shard in shards)
    assert manifest["totals"]["seconds"] == pytest.approx(
        sum(probe_video(clip).end for clip in clips.values()), abs=0.01
    )


def test_what_cannot_be_used_is_listed_and_too_much_of_it_is_a_failure(source: Path, capsys: Any) -> None:
    rows = json.loads((source / "q.json").read_text())
    (source / "videos/noise.mp4").write_bytes(b"noise")
    rows += [_conversation("noise.mp4", "1?"), _conversation("noise.mp4", "2?"), _conversation("none.mp4", "3?")]
    (source / "q.json").write_text(json.dumps(rows))
    assert pack.main(_arguments(source, "out")) == 1
    told = capsys.readouterr().err
    assert "1 of 11 questions cannot be used" in told, "so much is known before anything is written"
    assert told.endswith(f"; videos are looked for below --videos {source / 'videos'}\n")
    assert not list((source / "out").glob("*.tar"))
    assert pack.main(_arguments(source, "out", "--max-skip-rate", "0.1")) == 1
    captured = capsys.readouterr()
    assert "3 of 11 questions cannot be used" in captured.err and "2 x decode, 1 x missing_file" in captured.out
    assert pack.main(_arguments(source, "out", "--max-skip-rate", "0.3", "--json")) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["left_out"], last["totals"]["questions"], last["resumed"]) == (3, 8, len(last["shards"]))
    report = [json.loads(line) for line in (source / "out/train.left-out.jsonl").read_text().splitlines()]
    assert [(entry["row"], entry["questions"], entry["reason"]) for entry in report] == [
        ("q.json:11", 1, "missing_file"),
        ("q.json:9", 1, "decode"),
        ("q.json:10", 1, "decode"),
    ]


def test_another_set_of_the_name_is_not_touched_unless_asked(source: Path, capsys: Any) -> None:
    assert pack.main(_arguments(source, "out")) == 0
    before = _content(source / "out")
    rows = json.loads((source / "q.json").read_text())
    (source / "q.json").write_text(json.dumps(rows[:1]))
    assert pack.main(_arguments(source, "out")) == 1
    assert "is there already" in capsys.readouterr().err
    assert {name: content for name, content in _content(source / "out").items() if ".tar" in name} == {
        name: content for name, content in before.items() if ".tar" in name
    }
    assert pack.main(_arguments(source, "out", "--overwrite")) == 0
    assert sorted(_content(source / "out")) == [
        "train-000000.tar", "train-000000.tar.index.jsonl", "train.left-out.jsonl", "train.manifest.json",
    ]  # fmt: skip
    assert list(_asked(source / "out").values()) == [["a.mp4 0?"]]


def test_what_another_process_writes_under_a_longer_name_is_left_alone(source: Path) -> None:
    (source / "out").mkdir()
    of_killed = [
        "train-000000.tar.partial-7",
        "train-000000.tar.index.jsonl.partial-7",
        "train.manifest.json.partial-7",
    ]
    of_others = [
        "train-hard-000000.tar.partial-7",
        "train-hard.left-out.jsonl.partial-7",
        "trainer-000000.tar.partial-7",
    ]
    for name in of_killed + of_others:
        (source / "out" / name).touch()
    assert pack.main(_arguments(source, "out")) == 0
    assert {path.name for path in (source / "out").glob("*.partial-*")} == set(of_others)


def test_a_foreign_file_under_the_name_of_a_shard_is_not_overwritten(source: Path, capsys: Any) -> None:
    (source / "out").mkdir()
    (source / "out/train-000000.tar").write_bytes(b"somebody's work")
    assert pack.main(_arguments(source, "out")) == 1
    assert "train-000000.tar is there already" in capsys.readouterr().err
    assert (source / "out/train-000000.tar").read_bytes() == b"somebody's work"


def _killed(source: Path, n: int, out: str) -> subprocess.CompletedProcess[str]:
    script = str(Path(__file__).with_name("killed_pack.py"))
    command = [sys.executable, script, str(n), *_arguments(source, out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _is_whole(shard: Path) -> bool:
    """Whether a shard has all that was to be in it; its index came first."""
    file, walked = read_index(str(shard)), walk_shard(str(shard))
    return file is not None and walked.skips == [] and file.size == shard.stat().st_size


def _kill_at(source: Path, points: list[int]) -> None:
    assert pack.main(_arguments(source, "whole")) == 0
    whole = _content(source / "whole")
    for n in points:
        out = f"killed-{n}"
        killed = _killed(source, n, out)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert all(_is_whole(shard) for shard in (source / out).glob("*.tar"))
        assert not (source / out / "train.manifest.json").exists() or _content(source / out) == whole
        assert pack.main(_arguments(source, out)) == 0
        assert _content(source / out) == whole, f"killed before step {n}"


def test_a_killed_run_goes_on_to_the_same_bytes(source: Path) -> None:
    steps = int(_killed(source, 0, "counted").stdout.splitlines()[-1])
    _kill_at(source, [steps * part // 6 for part in range(1, 6)])


@pytest.mark.soak
def test_a_run_killed_at_any_step_goes_on_to_the_same_bytes(source: Path) -> None:
    steps = int(_killed(source, 0, "counted").stdout.splitlines()[-1])
    _kill_at(source, list(range(1, steps + 1)))


def test_a_video_that_changes_while_it_is_packed_is_an_error(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vilamp.data.packing import pack as packing

    def grow(*args: Any, **kwargs: Any) -> Any:
        with (source / "videos/a.mp4").open("ab") as file:
            file.write(b"more")
        return original(*args, **kwargs)

    original = packing.plan_shards
    monkeypatch.setattr(packing, "plan_shards", grow)
    assert pack.main(_arguments(source, "out")) == 1
    assert not (source / "out/train-000000.tar").exists()


def test_of_a_large_video_only_a_piece_is_in_memory(source: Path) -> None:
    size = 64 << 20
    with (source / "videos/a.mp4").open("ab") as file:  # a last box, which players pass over
        file.write(size.to_bytes(4, "big") + b"free")
        file.truncate(file.tell() - 8 + size)
    tracemalloc.start()
    try:
        assert pack.main(_arguments(source, "out")) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 4
    assert pack.main(["--check", str(source / "out"), "--no-decode", "--workers", "0"]) == 0


def test_a_video_that_fails_while_it_is_copied_leaves_nothing_of_itself(
    source: Path, clips: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    unchanged = write._unchanged

    class _Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error", "b.mp4")

    @contextmanager
    def failing(video: Path, planned: int) -> Iterator[BinaryIO]:
        with unchanged(video, planned) as file:
            yield _Failing() if video.name == "b.mp4" else file

    monkeypatch.setattr(write, "_unchanged", failing)
    assert pack.main([*_arguments(source, "out"), "--max-skip-rate", "0.5"]) == 0
    assert set(_asked(source / "out")) == {clip for name, clip in clips.items() if name != "sub/b.mp4"}
    report = [json.loads(line) for line in (source / "out/train.left-out.jsonl").read_text().splitlines()]
    assert [(entry["video"], entry["reason"]) for entry in report] == [("sub/b.mp4", "unreadable_file")] * 2
    assert all(_is_whole(shard) for shard in (source / "out").glob("*.tar"))


@pytest.mark.parametrize("change", [-100, 100])
def test_a_video_whose_size_changes_while_it_is_copied_is_an_error(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, change: int
) -> None:
    read = write.look_at_video

    def changing(video: FileRange) -> tuple[float, str]:
        found = read(video)
        os.truncate(video.path, video.size + change)
        return found

    monkeypatch.setattr(write, "look_at_video", changing)
    assert pack.main(_arguments(source, "out")) == 1
    assert "a.mp4 had" in (said := capsys.readouterr().err) and "it changed while it was packed" in said


def test_nothing_of_a_foreign_index_is_trusted_to_be_ours(source: Path) -> None:
    """An index without a plan is one of ``vilamp index``."""
    assert pack.main(_arguments(source, "out")) == 0
    index = source / "out/train-000000.tar.index.jsonl"
    index.write_bytes(index.read_bytes().replace(b'"plan":"', b'"plan":"0'))
    assert pack.main(_arguments(source, "out")) == 1
    skips = index_shards([str(index).removesuffix(".index.jsonl")], "x").skips
    assert [skip.reason for skip in skips] == ["bad_index"]
