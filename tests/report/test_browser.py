"""The report in a real browser without a network, as readers open it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_runs import HOSTILE, write_evaluation, write_run
from playwright.sync_api import Browser, sync_playwright

from vilamp.report.make import make_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (apt install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report(write_run(tmp_path_factory.mktemp("run"))).file


@pytest.mark.parametrize("width", [390, 1200])
def test_it_opens_without_a_network(browser: Browser, page_file: Path, width: int) -> None:
    """Every picture is drawn, nothing is wider than the screen, and nothing is asked for but the file."""
    context = browser.new_context(offline=True, viewport={"width": width, "height": 800})
    page, told, asked = context.new_page(), [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert not told and [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.images.length") == 2 * (4 + 2)
    assert page.evaluate("[...document.querySelectorAll('svg')].map(s => s.clientHeight).every(h => h > 50)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


def test_a_question_is_read_and_not_run(browser: Browser, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    assert page.title() == f"Run {page_file.parent.name}"
    assert page.locator("article h3").first.text_content() == HOSTILE
    page.close()


def test_it_is_light_or_dark_as_the_reader_has_it(browser: Browser, page_file: Path) -> None:
    def lightness(scheme: str, element: str, attribute: str) -> float:
        page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(page_file.as_uri())
        colour = page.evaluate(f"getComputedStyle(document.querySelector('{element}')).{attribute}")
        page.close()
        return sum(float(value) for value in colour.removeprefix("rgb(").removesuffix(")").split(","))

    assert lightness("light", "body", "backgroundColor") > 600 > 150 > lightness("dark", "body", "backgroundColor")
    # The text of a chart goes with it.
    assert lightness("light", "svg text", "fill") < 400 < lightness("dark", "svg text", "fill")


def test_under_the_pointer_a_frame_is_seen_whole(browser: Browser, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    shade = page.locator(".shade").first
    assert shade.evaluate("e => getComputedStyle(e).opacity") == "1"
    shade.hover(force=True)
    assert shade.evaluate("e => getComputedStyle(e).opacity") == "0"
    box, frame = shade.bounding_box(), page.locator(".frame", has=page.locator(".shade")).first.bounding_box()
    assert box and frame and abs(box["width"] - frame["width"]) <= 4 and abs(box["height"] - frame["height"]) <= 4
    page.close()


def test_the_heat_map_of_an_evaluation_is_drawn(browser: Browser, tmp_path: Path) -> None:
    """Its cells are a picture within the picture, which the page's own policy must let through."""
    page, told = browser.new_page(), []
    page.on("console", lambda message: told.append(message.text))
    page.goto(make_report(write_evaluation(tmp_path)).file.as_uri())
    box = page.locator("#heatmap-generation svg image").first.bounding_box()
    assert box and min(box["width"], box["height"]) > 50 and not told
    page.close()
