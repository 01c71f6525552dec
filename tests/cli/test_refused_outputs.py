"""Places that cannot be written: each command that is told where to write says so in one message, with the option."""

from __future__ import annotations

import json
from pathlib import Path

import numbered
import pytest

from vilamp.cli import main

COMMANDS = {
    "build": "videoniah build hay --needles needles.jsonl --lengths 20 --out PLACE/spec.jsonl",
    "example": "videoniah example --lengths 80 --haystacks 1 --needles 1 --out PLACE",
    "pack": "pack questions.json --workers 0 --out PLACE",
    "inspect": "inspect set/train-000000.tar --png PLACE/frames.png",
    "train": "train paths.output_root=PLACE",
}
OPTIONS = {"inspect": "--png", "train": "paths.output_root"}
PLACES = {
    "no folder can be made": "/proc/none",
    "no file can be made": "/proc",
    "a file": "file",
    "in a file": "file/deep/er",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    folder = tmp_path_factory.mktemp("inputs")
    numbered.write_videos(folder)
    (folder / "file").write_text("in the way")
    (folder / "questions.json").write_text(json.dumps([{"video": "hay/0.mp4", "question": "?", "answer": "a"}]))
    paths = [str(folder / "questions.json"), "--out", str(folder / "set")]
    assert main(["pack", *paths, "--workers", "0"]) == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_place_that_cannot_be_written_is_one_message(
    command: str, place: str, inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc, in which nobody can make a file")
    monkeypatch.chdir(inputs)
    assert main(COMMANDS[command].replace("PLACE", place).split()) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert place.partition("/deep")[0] in said and OPTIONS.get(command, "--out") in said
    assert (inputs / "file").read_text() == "in the way"


def test_a_specification_is_no_folder(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(inputs)
    assert main(["videoniah", "build", "hay", "--needles", "needles.jsonl", "--out", "hay"]) == 1
    assert capsys.readouterr().err == "error: --out hay is a folder; name a file in it, for example hay/spec.jsonl\n"
    assert not list(inputs.glob("*.partial"))
