"""Containers are read by a process of its own: one that hangs, crashes or takes all memory costs one video."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tars import annotation, write_tar
from unruly import UnrulyProbe, told

from vilamp.cli import inspect, pack
from vilamp.data.index_file import read_index
from vilamp.data.isolation import Budget, can_isolate
from vilamp.data.packing import looking
from vilamp.data.packing.check import Decoding, check_shards
from vilamp.data.packing.looking import look_at_video, stop_looking
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.probe import FileRange, probe_video
from vilamp.samples import SkipSample
from vilamp.testing.barcodes import write_video

pytestmark = pytest.mark.skipif(not can_isolate(), reason="only Linux has what this needs")

CLIP = write_video(list(range(3)), Fraction(1, 1))
REASONS = {
    "crash": ("decode_crash", "the decoding process ended with signal 6"),
    "leave": ("decode_crash", "the decoding process ended with exit code 3"),
    "grow": ("decode_memory", "there was not enough memory; 1.0 GiB are allowed"),
    "disk": ("decode", "[Errno 5] Input/output error"),
}
HUNG = ("decode_timeout", "reading its packets took longer than 1.0 seconds, and was ended")


def _run(seconds: float, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("unruly_look.py")
    command = [sys.executable, script, str(seconds), *arguments]
    path = os.pathsep.join([*sys.path, str(script.parent)])
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False
    )


def _pack(root: Path, words: list[str], seconds: float, workers: int) -> subprocess.CompletedProcess[str]:
    """A shard for each video."""
    (root / "videos").mkdir()
    for word in words:
        (root / f"videos/{word}.mp4").write_bytes(told(CLIP, word.encode()))
    (root / "q.json").write_text(json.dumps([{"video": f"{w}.mp4", "question": "?", "answer": "a"} for w in words]))
    folders = [root / "q.json", "--videos", root / "videos", "--out", root / "out", "--shard-size", "1K"]
    return _run(seconds, "pack", *folders, "--workers", str(workers), "--max-skip-rate", "0.8")


def _left_out(root: Path) -> dict[str, tuple[str, str]]:
    lines = (root / "out/train.left-out.jsonl").read_text().splitlines()
    return {Path(e["video"]).stem: (e["reason"], e["detail"]) for e in map(json.loads, lines)}


@pytest.mark.parametrize("workers", [1, 2])
def test_packing_leaves_out_videos_that_kill_their_reader(tmp_path: Path, workers: int) -> None:
    done = _pack(tmp_path, ["first", *REASONS, "last"], 60, workers)
    assert done.returncode == 0, done.stderr
    assert "2 samples, 2 questions" in done.stdout
    assert "left out: 4 question(s): 2 x decode_crash, 1 x decode_memory, 1 x decode" in done.stdout
    assert _left_out(tmp_path) == REASONS


def test_too_many_of_them_are_an_error_that_names_the_first(tmp_path: Path) -> None:
    done = _pack(tmp_path, ["crash"], 60, 0)
    assert done.returncode == 1
    assert "1 of 1 questions cannot be used" in done.stderr and "q.json:1: decode_crash: the decoding" in done.stderr
    assert (tmp_path / "out/train.left-out.jsonl").read_text().count('"crash.mp4"') == 1


def test_packing_ends_the_reading_of_a_video_that_hangs(tmp_path: Path) -> None:
    done = _pack(tmp_path, ["hang", "last"], 1, 0)
    assert done.returncode == 0, done.stderr
    assert _left_out(tmp_path) == {"hang": HUNG}


@pytest.mark.parametrize("workers", [1, 2])
def test_indexing_names_videos_that_kill_their_reader(tmp_path: Path, workers: int) -> None:
    shards = [
        write_tar(tmp_path / f"{number}.tar", [
            member for word in words for member in ((f"{word}.json", annotation()),
                                                    (f"{word}.mp4", told(CLIP, word.encode())))
        ])
        for number, words in enumerate([["crash", "fine"], ["grow", "leave", "fine", "disk"]])
    ]  # fmt: skip
    done = _run(60, "index", *shards, "--workers", str(workers), "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [row["samples"] for row in rows] == [2, 4], "they are in the index, so that training counts them"
    assert {skip["key"]: (skip["reason"], skip["detail"]) for row in rows for skip in row["refused"]} == REASONS
    for shard in shards:
        file = read_index(str(shard))
        assert file is not None
        assert [sample.key for sample in file.index.samples if sample.seconds is not None] == ["fine"]


def test_a_check_without_decoding_lists_them(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "x.tar", [("hang.json", annotation()), ("hang.mp4", told(CLIP, b"hang")),
                                           ("fine.json", annotation()), ("fine.mp4", CLIP)])  # fmt: skip
    done = _run(1, "pack", "--check", shard, "--no-decode", "--workers", "0")
    assert done.returncode == 1, done.stderr
    assert f"hang: {HUNG[0]}: {HUNG[1]}\n" in done.stdout and "1 usable samples" in done.stdout


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started."""
    stop_looking()
    start, children = subprocess.Popen, []

    def noted(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        children.append(start(*args, **kwargs))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    return children


def test_one_process_reads_all_videos_and_ends_with_the_packing(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.mp4").write_bytes(CLIP)
    (tmp_path / "q.json").write_text(json.dumps([{"video": f"{n}.mp4", "question": "?", "answer": "a"} for n in "012"]))
    out = str(tmp_path / "out")
    assert pack.main([str(tmp_path / "q.json"), "--out", out, "--shard-size", "1K", "--workers", "0"]) == 0
    assert len(started) == 1 and started[0].returncode is not None
    verdict = check_shards([str(path) for path in (tmp_path / "out").glob("*.tar")], Decoding(PyAVDecoder, 60.0))
    assert (verdict.samples, verdict.problems) == (3, [])
    assert len(started) == 2 and started[1].returncode is not None, "the one that decodes also looks"


def test_it_says_the_same_as_this_process_and_starts_without_torch(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(CLIP)
    for source in (CLIP, FileRange(str(tmp_path / "clip.mp4"), 0, len(CLIP))):
        assert look_at_video(source) == (round(probe_video(source).end, 3), "")
    cut = write_video(list(range(60)), Fraction(1, 30), suffix="mkv")[:-500]
    assert look_at_video(cut)[1] == probe_video(cut).damage != ""
    with pytest.raises(SkipSample, match=r"^decode: "):
        look_at_video(b"noise")
    [child] = started
    assert "torch" not in Path(f"/proc/{child.pid}/maps").read_text()
    stop_looking()
    assert child.returncode is not None


def test_inspect_shows_them_as_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(looking, "PacketReader", UnrulyProbe)
    monkeypatch.setattr(looking, "USUAL", Budget(60, 1, "", ""))
    stop_looking()
    try:
        shard = write_tar(tmp_path / "x.tar", [("a.json", annotation()), ("a.mp4", told(CLIP, b"crash"))])
        assert inspect.main([str(shard), "--json"]) == 0
    finally:
        stop_looking()
    [row] = json.loads(capsys.readouterr().out)["samples"]
    assert row["problem"] == "decode_crash: the decoding process ended with signal 6"
