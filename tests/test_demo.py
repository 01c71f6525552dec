"""The page in a browser: what it does without one, and, with the extra ``demo``, in a real one."""

from __future__ import annotations

import importlib.util
import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import vilamp
from vilamp import cli, demo
from vilamp.errors import ConfigError, DataError
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
    shown = demo.Desk(loaded).ask(None, f" {clip} ", COLOUR)
    assert shown.picture.dtype == np.uint8 and shown.picture.shape == (500, 1200, 3)
    assert 1 <= len(shown.keyframes) <= 2
    assert [told for _, told in shown.keyframes] == [f"{time:.1f} s" for time in shown.answer.keyframes]


def test_a_click_shows_the_frame_of_its_time(loaded: LoadedModel, clip: str) -> None:
    shown = demo.Desk(loaded).ask(None, clip, COLOUR)
    step = (shown.right - shown.left) / 7  # the axis goes from the first frame to the last one
    for steps, index in ((-1, 0), (0, 0), (3.1, 3), (3.9, 3), (8, 7)):
        frame, time = shown.frame_at(shown.left + steps * step)
        assert time == index and np.array_equal(frame, shown.session.video.frames[index].numpy())


def test_a_video_stays_open_until_another_one_is_asked_about(loaded: LoadedModel, clip: str) -> None:
    desk = demo.Desk(loaded)
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
        demo.Desk(loaded).ask(uploaded, path, question)


def test_without_gradio_it_is_said_what_to_install(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"pip install 'vilamp-lightning\[demo\]'"):
        demo.page(loaded)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["demo"]) == 1
    assert "error: vilamp demo needs gradio" in capsys.readouterr().err


@pytest.mark.demo
@pytest.mark.filterwarnings("default")  # those of gradio are not ours
def test_the_page_in_a_browser(loaded: LoadedModel, clip: str) -> None:
    """Ask, read the answer, click on the timeline, see another frame; nothing is fetched from elsewhere."""
    from playwright.sync_api import expect, sync_playwright

    blocks = demo.page(loaded)
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, **demo.appearance())
    asked: list[str] = []
    try:
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address)
            page.locator("#path textarea, #path input").first.fill(clip)
            page.locator("#question textarea, #question input").first.fill(COLOUR)
            page.locator("#ask").click()
            answer = page.locator("#answer textarea, #answer input").first
            expect(answer).to_have_value(re.compile(r"\d+% sure"), timeout=60_000)
            picture = page.locator("#timeline img").first
            expect(picture).to_be_visible()
            picture.click(position={"x": 300, "y": 60})
            expect(page.locator("#frame img").first).to_be_visible(timeout=30_000)
            label = page.locator("#frame").inner_text()
            assert "the frame at" in label, label
            browser.close()
    finally:
        blocks.close()
    assert asked and all(url.startswith((address, "data:", "blob:")) for url in asked)
