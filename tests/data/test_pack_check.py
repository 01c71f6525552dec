"""``vilamp pack --check`` finds what is wrong with a set, and ``vilamp inspect`` shows what is in a shard."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tars import annotation, write_tar
from unruly import UnrulyDecoder, told

from vilamp import cli
from vilamp.cli import inspect, pack
from vilamp.data.isolation import can_isolate
from vilamp.data.packing.check import Decoding, check_shards
from vilamp.data.packing.indexing import write_foreign_index
from vilamp.data.packing.thumbnails import half_blocks
from vilamp.data.shards import index_shard
from vilamp.testing.barcodes import read_barcodes, write_video


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A set of three videos of 2, 3 and 4 seconds, a shard each."""
    (tmp_path / "videos").mkdir()
    rows = []
    for number in range(3):
        (tmp_path / f"videos/{number}.mp4").write_bytes(write_video(list(range(number + 2)), Fraction(1, 1)))
        rows.append({"video": f"{number}.mp4", "question": f"{number}?\x1b[2J", "answer": "yes"})
    (tmp_path / "q.json").write_text(json.dumps(rows))
    folders = ["--videos", str(tmp_path / "videos"), "--out", str(tmp_path / "out")]
    assert pack.main([str(tmp_path / "q.json"), *folders, "--shard-size", "1K", "--workers", "0"]) == 0
    return tmp_path / "out"


def _check(capsys: Any, *paths: Path | str, workers: int = 0) -> tuple[int, list[tuple[str, str, str]], dict[str, Any]]:
    capsys.readouterr()
    code = pack.main(["--check", *map(str, paths), "--json", "--workers", str(workers)])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    return code, [(Path(p["shard"]).name, p["key"], p["reason"]) for p in found["problems"]], found


@pytest.mark.parametrize("workers", [0, 2])
def test_a_good_set_has_no_problems(packed: Path, capsys: Any, workers: int) -> None:
    code, problems, found = _check(capsys, packed, workers=workers)
    assert (code, problems) == (0, [])
    assert (found["shards"], found["samples"], found["questions"]) == (3, 3, 3)


def _flip(packed: Path) -> None:
    shard = packed / "train-000001.tar"
    content = bytearray(shard.read_bytes())
    content[content.index(b"mdat") + 10] ^= 1
    shard.write_bytes(content)


def _cut(packed: Path) -> None:
    shard = packed / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:600])


def _lose(packed: Path) -> None:
    (packed / "train-000001.tar").unlink()


def _add(packed: Path) -> None:
    shard = packed / "train-000007.tar"
    shard.write_bytes((packed / "train-000001.tar").read_bytes())
    Path(f"{shard}.index.jsonl").write_bytes((packed / "train-000001.tar.index.jsonl").read_bytes())


def _lose_index(packed: Path) -> None:
    (packed / "train-000001.tar.index.jsonl").unlink()


def _exchange(packed: Path) -> None:
    """Two whole shards change names; each still has an index, of the other."""
    one, other = packed / "train-000000.tar", packed / "train-000001.tar"
    one.rename(packed / "aside")
    other.rename(one)
    (packed / "aside").rename(other)


def _forge_manifest(packed: Path) -> None:
    path = packed / "train.manifest.json"
    path.write_text(path.read_text().replace("train-000001.tar", "../out/train-000001.tar"))


M = "train.manifest.json"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_flip, {("train-000001.tar", "1", "checksum")}),
        (_cut, {(M, "", "manifest"), ("train-000001.tar", "", "stale_index"), ("train-000001.tar", "", "damaged_shard"),
                ("train-000001.tar", "1", "stale_index"), ("train-000001.tar", "1", "damaged_shard")}),
        (_lose, {(M, "", "manifest")}),
        (_add, {(M, "", "manifest")}),
        (_lose_index, {(M, "", "manifest"), ("train-000001.tar", "", "no_index")}),
        (_exchange, {(f"train-00000{i}.tar", key, reason) for i in range(2) for key, reason in
                     (("0", "stale_index"), ("1", "stale_index"), (str(i), "checksum"))}),
        (_forge_manifest, {(M, "", "manifest")}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    packed: Path, capsys: Any, damage: Callable[[Path], None], expected: set[tuple[str, str, str]]
) -> None:
    damage(packed)
    code, problems, _ = _check(capsys, packed)
    assert code == 1
    assert set(problems) == expected


def test_every_unusable_video_of_a_foreign_shard_is_listed(tmp_path: Path, capsys: Any) -> None:
    clip = write_video(list(range(2)), Fraction(1, 1))
    shard = write_tar(tmp_path / "x.tar", [
        ("good.json", annotation()), ("good.mp4", clip), ("noise.json", annotation()), ("noise.mp4", b"noise"),
        ("cut.json", annotation()), ("cut.mp4", clip[:800]), ("none.json", annotation()), ("lone.mp4", clip),
        ("forgotten.json", annotation(video=None)), ("forgotten.mp4", clip),
    ])  # fmt: skip
    code, problems, found = _check(capsys, shard)
    assert (code, found["samples"]) == (1, 1)
    assert sorted((key, reason) for _, key, reason in problems) == [
        ("", "no_index"), ("cut", "decode"), ("forgotten", "bad_json"), ("lone", "missing_member"),
        ("noise", "decode"), ("none", "missing_member"),
    ]  # fmt: skip


def test_a_manifest_stands_for_its_set(packed: Path, capsys: Any) -> None:
    (packed / "other.tar").write_bytes(b"")
    code, problems, found = _check(capsys, packed / "train.manifest.json")
    assert (code, problems, found["shards"], found["samples"]) == (0, [], len(list(packed.glob("train-*.tar"))), 3)


def test_a_manifest_may_name_what_no_file_can_be_called(packed: Path, capsys: Any) -> None:
    manifest = json.loads((packed / "train.manifest.json").read_text())
    manifest["shards"].append({"shard": "x" * 300})
    (packed / "train.manifest.json").write_text(json.dumps(manifest))
    code, problems, _ = _check(capsys, packed)
    assert (code, problems) == (1, [("train.manifest.json", "", "manifest")])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX has these")
def test_nobody_waits_for_an_index_or_a_manifest_that_is_no_file(packed: Path, capsys: Any) -> None:
    for path in (packed / "train.manifest.json", packed / "train-000001.tar.index.jsonl"):
        path.unlink()
        os.mkfifo(path)
    code, problems, found = _check(capsys, packed)
    assert (code, found["samples"]) == (1, 3)
    assert problems == [("train.manifest.json", "", "manifest"), ("train-000001.tar", "", "bad_index")]
    assert all("no plain file" in problem["detail"] for problem in found["problems"])


def _holed(clip: bytes) -> bytes:
    """With a hole in its pictures, of which the container says nothing."""
    begin = clip.index(b"mdat")
    length = int.from_bytes(clip[begin - 4 : begin], "big")
    first, last = begin + length // 2, begin + 3 * length // 4
    return clip[:first] + bytes(last - first) + clip[last:]


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_in_the_middle_of_a_packed_video_is_found(tmp_path: Path, capsys: Any, workers: int) -> None:
    clip = write_video(list(range(60)), Fraction(1, 30), options={"g": "15"})
    (tmp_path / "videos").mkdir()
    names = [f"{number}.mp4" for number in range(4)]
    for name in names:
        (tmp_path / "videos" / name).write_bytes(_holed(clip) if name == "2.mp4" else clip)
    (tmp_path / "q.json").write_text(json.dumps([{"video": name, "question": "?", "answer": "a"} for name in names]))
    folders = ["--videos", str(tmp_path / "videos"), "--out", str(tmp_path / "out")]
    assert pack.main([str(tmp_path / "q.json"), *folders, "--workers", "0"]) == 0
    code, problems, found = _check(capsys, tmp_path / "out", workers=workers)
    assert (code, problems, found["samples"]) == (1, [("train-000000.tar", "2", "decode")], 3)
    assert "cannot be decoded" in found["problems"][0]["detail"]
    assert _check(capsys, tmp_path / "out", "--no-decode", workers=workers)[0] == 0


def test_a_video_that_is_cut_off_is_told_by_packing_and_by_every_check(
    tmp_path: Path, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clip = write_video(list(range(60)), Fraction(1, 30), suffix="mkv")
    (tmp_path / "half.mkv").write_bytes(clip[: len(clip) // 2])
    (tmp_path / "q.json").write_text('[{"video": "half.mkv", "question": "?", "answer": "a"}]')
    assert pack.main([str(tmp_path / "q.json"), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    assert "half.mkv: the file is cut off behind frame" in caplog.text and "data.corrupt=gap only" in caplog.text
    for more in ([], ["--no-decode"]):
        code, problems, _ = _check(capsys, tmp_path / "out", *more)
        assert (code, problems) == (1, [("train-000000.tar", "half", "decode")])
    shard = tmp_path / "out/train-000000.tar"
    indexed = write_foreign_index(str(shard), overwrite=True)
    assert (indexed.samples, [skip.reason for skip in indexed.refused]) == (1, ["decode"])
    assert index_shard(str(shard)).samples[0].seconds is not None, "for data.corrupt=gap"


@pytest.mark.skipif(not can_isolate(), reason="only Linux decodes in a process of its own")
def test_a_video_that_hangs_or_kills_its_decoder_costs_the_check_one_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, children = subprocess.Popen, []

    def noted(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        children.append(start(*args, **kwargs))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    clip = write_video(list(range(2)), Fraction(1, 1))
    shard = write_tar(tmp_path / "x.tar", [
        member for word in (b"crash", b"hang", b"fine")
        for member in ((f"{word.decode()}.json", annotation()), (f"{word.decode()}.mp4", told(clip, word)))
    ])  # fmt: skip
    verdict = check_shards([str(shard)], Decoding(UnrulyDecoder, 5.0))
    found = {problem.key: (problem.reason, problem.detail) for problem in verdict.problems}
    assert (verdict.samples, sorted(found)) == (1, ["", "crash", "hang"])
    assert found["crash"][0] == "decode_crash"
    assert found["hang"] == ("decode_timeout", "decoding took longer than --decode-timeout=5.0 seconds, and was ended")
    assert len(children) == 3 and all(child.returncode is not None for child in children)


def test_nothing_to_check_is_an_error(tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["pack", "--check", str(tmp_path)]) == 1
    assert "there is no shard" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["q.json"], "packing needs one ANNOTATIONS and --out"),
        (["q.json", "r.json", "--out", "o"], "packing needs one ANNOTATIONS and --out"),
        (["q.json", "--out", "o", "--column", "question"], "'question' is not FIELD=NAME"),
        (["q.json", "--out", "o", "--shard-size", "many"], "'many' is no size such as 500M"),
        (["q.json", "--out", "o", "--no-decode"], "--no-decode and --decode-timeout go with --check"),
        (["q.json", "--out", "o", "--decode-timeout", "5"], "--no-decode and --decode-timeout go with --check"),
        (["--check", "o", "--decode-timeout", "nan"], "'nan' is no number of seconds above 0"),
        (["--check", "o", "--decode-timeout", "soon"], "'soon' is no number of seconds above 0"),
    ],
)
def test_a_misused_command_line_ends_with_2(capsys: Any, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["pack", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--name", "../x"], "--name must be of letters"),
        (["--shard-size", "0"], "--shard-size must be at least a byte"),
        (["--max-skip-rate", "2"], "--max-skip-rate must be from 0 to 1"),
        (["--videos", "none"], "--videos: none is no folder"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, capsys: Any, more: list[str], message: str) -> None:
    (tmp_path / "q.json").write_text("[]")
    assert cli.main(["pack", str(tmp_path / "q.json"), "--out", str(tmp_path / "out"), *more]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_inspect_lists_the_samples_of_a_shard(packed: Path, capsys: Any) -> None:
    shard = packed / "train-000001.tar"
    capsys.readouterr()
    assert cli.main(["inspect", str(shard)]) == 0
    shown = capsys.readouterr().out
    assert "with an index" in shown and "1 of 1 sample(s)" in shown and "1? [2J" in shown
    assert "\x1b[2J" not in shown, "what stands in a shard gives no orders to a terminal"
    assert inspect.main([str(shard), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    [row] = found["samples"]
    assert (row["key"], row["questions"], row["seconds"] > 2, row["problem"]) == ("1", 1, True, None)


def test_inspect_shows_what_is_wrong_and_goes_on(tmp_path: Path, capsys: Any) -> None:
    members = [("a.json", b"{"), ("b.json", annotation()), ("b.mp4", b"noise"), ("c.mp4", b"")]
    assert inspect.main([str(write_tar(tmp_path / "x.tar", members)), "--json", "--limit", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["indexed"], found["total"], len(found["samples"])) == (False, 2, 1)
    assert found["samples"][0]["problem"].startswith("bad_json")
    assert [skip["reason"] for skip in found["no_samples"]] == ["missing_member"]


def test_inspect_paints_the_frames_of_a_video(packed: Path, tmp_path: Path, capsys: Any) -> None:
    shard, picture = str(packed / "train-000002.tar"), tmp_path / "sheet.png"
    assert inspect.main([shard, "--png", str(picture), "--frames", "3", "--thumbnails"]) == 0
    assert capsys.readouterr().out.count("▀") == 3 * 24 * 12
    with Image.open(picture) as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (176, 480, 3)
    assert read_barcodes(pixels[16:].reshape(160, 3, 160, 3).swapaxes(0, 1)) == [0, 2, 3]
    (tmp_path / "text").mkdir()
    text = write_tar(tmp_path / "text/x.tar", [("a.json", annotation(video=None))])
    assert inspect.main([str(text), "--png", str(picture)]) == 1
    assert "there are no frames to show" in capsys.readouterr().err


def test_half_blocks_have_the_colours_of_the_pixels() -> None:
    frames = np.arange(2 * 4 * 3 * 3, dtype=np.uint8).reshape(2, 4, 3, 3)
    text = half_blocks(frames)
    assert text.plain == "▀▀▀ ▀▀▀\n" * 2
    console = Console(color_system="truecolor", force_terminal=True, width=40)
    first = next(iter(text.render(console))).style
    assert first is not None and first.color is not None and first.bgcolor is not None
    assert tuple(first.color.triplet or ()) == tuple(frames[0, 0, 0])
    assert tuple(first.bgcolor.triplet or ()) == tuple(frames[0, 1, 0])
