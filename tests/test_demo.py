"""The page in a browser: what it does without one, and, with the extra ``demo``, in a real one."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import vilamp
from vilamp import cli
from vilamp.demo.desk import Desk
from vilamp.errors import DataError
from vilamp.session import LoadedModel
from vilamp.testing.barcodes import write_video

COLOUR = "what colour is the circle?"


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return vilamp.load(num_keyframes=2, device="cpu")


@pytest.fixture
def clip(tmp_path: Path) -> str:
    file = tmp_path / "clip.mp4"
    file.write_bytes(write_video(list(range(8)), Fraction(1)))
    return str(file)


def test_an_answer_comes_with_its_timeline_and_keyframes(loaded: LoadedModel, clip: str) -> None:
    shown = Desk(loaded).ask(None, f" {clip} ", COLOUR)
    assert shown.picture.dtype == np.uint8 and shown.picture.shape == (418, 1100, 3)
    assert 1 <= len(shown.keyframes) <= 2
    assert [told for _, told in shown.keyframes] == [f"{time:.1f} s" for time in shown.answer.keyframes]


def test_a_click_shows_the_frame_of_its_time(loaded: LoadedModel, clip: str) -> None:
    shown = Desk(loaded).ask(None, clip, COLOUR)
    step = (shown.right - shown.left) / 7  # the axis goes from the first frame to the last one
    for steps, index in ((-1, 0), (0, 0), (3.1, 3), (3.9, 3), (8, 7)):
        frame, time = shown.frame_at(shown.left + steps * step)
        assert time == index and np.array_equal(frame, shown.session.video.frames[index].numpy())


def test_a_video_stays_open_until_another_one_is_asked_about(loaded: LoadedModel, clip: str) -> None:
    desk = Desk(loaded)
    first, second = desk.ask(None, clip, COLOUR), desk.ask(clip, "", "where is the star?")
    assert first.session is second.session
    other = Path(clip).with_name("other.mp4")
    other.write_bytes(write_video(list(range(5)), Fraction(1)))
    assert len(desk.ask(None, str(other), COLOUR).session.video) == 5
    assert desk.ask(None, clip, COLOUR).session is not first.session


@pytest.mark.parametrize(
    ("uploaded", "path", "question", "message"),
    [
        (None, " ", COLOUR, "give a video"),
        ("a.mp4", "b.mp4", COLOUR, "not both"),
        (None, "nowhere.mp4", COLOUR, "there is no video nowhere.mp4"),
        (None, "", "", "give a video"),
    ],
)
def test_what_cannot_be_asked_is_told(loaded: LoadedModel, uploaded, path, question, message) -> None:
    with pytest.raises(DataError, match=message):
        Desk(loaded).ask(uploaded, path, question)


def test_without_gradio_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["demo"]) == 1
    assert "error: vilamp demo needs gradio: pip install 'vilamp-lightning[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "99999", "abc", "-1"])
def test_a_port_that_cannot_be_is_told(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo", f"--port={port}"])
    assert f"argument --port: must be a whole number from 1 to 65535, got '{port}'" in capsys.readouterr().err


def test_a_mistake_in_a_setting_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "max_frame=3"]) == 1
    assert "error: there is no setting 'max_frame'" in capsys.readouterr().err


def test_uploaded_videos_are_gone_with_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is a stand-in, to which somebody uploads a video."""
    uploads: list[Path] = []

    def serve(loaded: LoadedModel, port: int | None) -> None:
        uploads.append(Path(os.environ["GRADIO_TEMP_DIR"]) / "video.mp4")
        uploads[0].write_bytes(b"private")

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # so that it is as before when the test ends
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr("vilamp.session.load_configured", lambda cfg: None)
    monkeypatch.setitem(sys.modules, "vilamp.demo.page", SimpleNamespace(serve=serve))
    assert cli.main(["demo"]) == 0
    assert uploads and not uploads[0].parent.exists()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where ``vilamp demo`` serves its page; what it has to say goes into the file ``said``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from vilamp.cli import main; sys.exit(main())"
    command = [sys.executable, "-u", "-c", code, "demo", "num_keyframes=2", "--port", str(port)]
    said = (tmp_path / "said").open("w")
    with said, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as server:
        assert server.stdout is not None
        assert any("Running on local URL" in line for line in server.stdout)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.mark.demo
def test_the_page_in_a_browser(address: str, clip: str, tmp_path: Path) -> None:
    """Ask, read the answer, click on the timeline, see the frame; nothing is fetched from elsewhere."""
    from playwright.sync_api import expect, sync_playwright

    asked: list[str] = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_label("or the path of one on this machine").fill(clip)
        page.get_by_label("question").fill(" ")
        page.get_by_role("button", name="Ask").click()
        expect(page.get_by_text("the question is empty")).to_be_visible(timeout=60_000)
        page.get_by_label("question").fill(COLOUR)
        page.get_by_role("button", name="Ask").click()
        expect(page.get_by_label("answer")).to_have_value(re.compile(r"\d+% sure"), timeout=60_000)
        timeline = page.locator("#timeline img").first
        expect(timeline).to_be_visible(timeout=60_000)
        box = timeline.bounding_box()
        assert box is not None
        timeline.click(position={"x": box["width"] * 0.95, "y": box["height"] * 0.3})
        expect(page.locator("#frame")).to_contain_text("the frame at 6.0 s", timeout=60_000)
        expect(page.locator("#frame img").first).to_be_visible(timeout=60_000)
        browser.close()
    assert asked and all(url.startswith((address, "data:", "blob:")) for url in asked)
    assert "Traceback" not in (tmp_path / "said").read_text(), "a question that cannot be asked is told on the page"
