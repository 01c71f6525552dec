"""What data/README.md shows is run: its example is read, its ways of writing shards write shards that are read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from vilamp import cli
from vilamp.data import annotations, shard_sample
from vilamp.data.annotations import parse_annotation
from vilamp.data.decode import VideoReader
from vilamp.data.frame_reader import REASONS
from vilamp.data.frames import FrameSettings
from vilamp.data.patterns import expand_patterns
from vilamp.data.shards import index_shards
from vilamp.decoders.auto import AutoDecoder
from vilamp.testing.barcodes import write_video

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "data" / "README.md").read_text(encoding="utf-8")


def _example(name: str) -> str:
    found = re.search(rf"<!-- example:{name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, name
    return found[1]


def _check(pattern: str) -> None:
    index = index_shards(expand_patterns(pattern, "data.train"), "data.train")
    assert index.skips == []
    assert [sample.key for sample in index.samples] == ["kitchen-0001", "kitchen-0002"]
    for sample in index.samples:
        annotation = parse_annotation(sample.read("json"))
        assert annotation.video == "mp4"
        assert len(VideoReader(AutoDecoder(), FrameSettings(1.0, 8, 32)).read(sample.read("mp4"), sample.key)) == 3


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A video, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    return write_video(list(range(3)), Fraction(1, 1))


def test_the_example_is_what_is_read() -> None:
    source = _example("annotation")
    annotation = parse_annotation(source.encode())
    assert annotation.questions[0].query == "a woman takes a cup from a shelf"
    assert annotation.questions[0].evidence == ((61.5, 64.0),)
    for field in {*json.loads(source), *json.loads(source)["questions"][0]}:
        assert re.search(rf"^\|.*`{field}`", README, re.MULTILINE), f"{field} is not in the table of fields"


def test_webdataset_writes_a_shard_in_ten_lines(clip: bytes, tmp_path: Path) -> None:
    lines = [line for line in _example("write").splitlines() if line]
    assert len(lines) <= 10
    (tmp_path / "videos").mkdir()
    for number in (1, 2):
        (tmp_path / f"videos/kitchen-000{number}.mp4").write_bytes(clip)
    exec(compile(_example("write"), "data/README.md", "exec"), {})
    _check("train-*.tar")


def test_plain_tar_writes_a_shard(clip: bytes, tmp_path: Path) -> None:
    command = _example("tar")
    if shutil.which("tar") is None or "GNU tar" not in subprocess.check_output(["tar", "--version"], text=True):
        pytest.skip("the command is for GNU tar")
    for folder in ("folder", "my"):
        (tmp_path / folder).mkdir()
    for number in (1, 2):
        (tmp_path / f"folder/kitchen-000{number}.mp4").write_bytes(clip)
        (tmp_path / f"folder/kitchen-000{number}.json").write_text(_example("annotation"))
    subprocess.run(command, shell=True, check=True)
    _check("my/train-*.tar")


def test_the_commands_pack_a_set_that_is_read(clip: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    turns = [{"from": "human", "value": "<image>\nWhat colour is the cup?"}, {"from": "gpt", "value": "green"}]
    rows = []
    for number in (1, 2):
        (tmp_path / f"videos/kitchen-000{number}.mp4").write_bytes(clip)
        rows.append({"video": f"kitchen-000{number}.mp4", "conversations": turns})
    for name in ("train", "val"):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    for line in _example("pack").splitlines():
        program, *arguments = line.split()
        assert program == "vilamp"
        assert cli.main(arguments) == 0, capsys.readouterr()
    for name in ("train", "val"):
        _check(f"my/{name}-*.tar")
    assert cli.main(["pack", "--check", "my"]) == 0
    listed = README.partition("`my` then holds")[2].partition("More than")[0]
    for path in (tmp_path / "my").glob("train*"):
        assert path.suffix == ".lock" or f"`{path.name}`" in listed


def test_every_reason_is_explained() -> None:
    folder = ROOT / "vilamp"
    code = "".join(
        path.read_text(encoding="utf-8") for part in ("data", "models") for path in (folder / part).glob("*.py")
    )
    raised = set(re.findall(r'SkipSample\(\s*"(\w+)"', code)) | set(re.findall(r'Skip\([\w"]+, shard, "(\w+)"', code))
    raised |= {"decode", *REASONS.values()}
    raised |= set(re.findall(r'refused\.append\(\(.*?, "(\w+)",', code))
    assert {"decode", "bad_json", "bad_name", "not_a_file", "too_long", "damaged_shard"} <= raised
    table = set(re.findall(r"^\| `(\w+)` \| ", README, re.MULTILINE))
    assert raised <= table


def test_the_limits_are_those_of_the_code() -> None:
    assert shard_sample.MAX_MEMBER_BYTES == 4 << 30 and "more than 4 GiB" in README
    assert annotations.MAX_BYTES == 1 << 20 and "more than 1 MiB" in README
