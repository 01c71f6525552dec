"""The report of a run: what is on the page, for runs that ended and runs that were killed, whatever is in the data."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from pathlib import Path

import html5lib
import pytest
from made_runs import FIGURES, HOSTILE, sample, write_run

from vilamp.cli import main
from vilamp.errors import DataError
from vilamp.report.charts import POINTS, curve
from vilamp.report.make import make_report
from vilamp.report.samples import Cost, Samples, read_samples, spread
from vilamp.report.timeline import patches_looked_at

HTML = "{http://www.w3.org/1999/xhtml}"
LIMIT = 5 * 1000**2


def parsed(file: Path) -> ET.Element:
    """The page, which has no error for a parser that forgives none."""
    return html5lib.HTMLParser(strict=True).parse(file.read_text(encoding="utf-8"))


def text_of(element: ET.Element) -> str:
    return "".join(element.itertext())


def test_the_page_and_its_pictures(tmp_path: Path) -> None:
    report = make_report(write_run(tmp_path / "run"))
    names = {"learning", "by_kind", "by_depth", "memory", "costs", "timeline-1", "timeline-2"}
    assert set(report.pictures) == names
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in report.pictures.values())
    assert (tmp_path / "run" / "timeline.png").read_bytes() == report.pictures["timeline-1"].read_bytes()
    page = parsed(report.file)
    assert len(page.findall(f".//{HTML}article")) == 2
    figures = {figure.get("id") for figure in page.iter(f"{HTML}figure")} - {None}
    assert figures == names
    table = text_of(page.findall(f".//{HTML}details")[0])
    assert all(f"{name}{value:.6g}" in table for name, value in FIGURES.items())


def test_what_comes_from_data_is_text(tmp_path: Path) -> None:
    page = parsed(make_report(write_run(tmp_path)).file)
    elements = list(page.iter())
    tags = {element.tag.rpartition("}")[2] for element in elements}
    assert not tags & {"script", "iframe", "object", "embed", "form", "link", "base"}
    attributes = [(name, value) for element in elements for name, value in element.attrib.items()]
    assert not [name for name, _ in attributes if name.startswith("on")]
    assert all(text_of(heading) == HOSTILE for heading in page.iter(f"{HTML}h3"))
    labels = [text_of(text) for text in page.iter() if text.tag.endswith("}text")]
    assert any(label.startswith("<script>document.title=") for label in labels)  # a bar's name, cut off


def test_nothing_comes_from_outside(tmp_path: Path) -> None:
    content = make_report(write_run(tmp_path)).file.read_text()
    page = parsed(tmp_path / "report.html")
    sources = [e.get(name) or "" for e in page.iter() for name in ("src", "href", "{http://www.w3.org/1999/xlink}href")]
    assert all(source.startswith(("data:image/", "#")) for source in sources if source)
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", content)) and "@import" not in content
    policy = next(meta for meta in page.iter(f"{HTML}meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy.attrib["content"]


def test_ids_are_unique(tmp_path: Path) -> None:
    page = parsed(make_report(write_run(tmp_path)).file)
    counts = Counter(element.get("id") for element in page.iter() if element.get("id"))
    assert set(counts.values()) == {1}


def test_the_fullest_report_is_below_its_limit(tmp_path: Path) -> None:
    """Six questions about 10,000 frames with the most stills there can be, of pictures that do not compress."""
    fullest = sample(frames=10_000, stills=20, size=160, text=HOSTILE * 20)
    fine = [[1 / 729] * 27] * 27
    stills = [replace(still, weights=fine if still.merged else None) for still in fullest.stills]
    report = make_report(write_run(tmp_path, [replace(fullest, stills=stills)] * 6))
    assert 100_000 < report.file.stat().st_size < LIMIT


def test_a_killed_run_has_curves_and_says_that_it_has_not_ended(tmp_path: Path) -> None:
    report = make_report(write_run(tmp_path, ended=False))
    assert set(report.pictures) == {"learning", "memory"} and not (tmp_path / "timeline.png").exists()
    told = text_of(parsed(report.file))
    assert "This run has not ended" in told and "0.75" in told


@pytest.mark.parametrize("relevance", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_what_selector_and_merger_do_not_tell_is_left_out(tmp_path: Path, relevance: bool, weights: bool) -> None:
    shown = sample(relevance=relevance)
    stills = [still if weights else replace(still, weights=None) for still in shown.stills]
    page = parsed(make_report(write_run(tmp_path, [replace(shown, stills=stills)])).file)
    shades = [image for image in page.iter(f"{HTML}img") if image.get("class") == "shade"]
    assert len(shades) == 2 * weights
    assert ("the merger does not tell" in text_of(page)) is not weights
    assert ("cosine with the question" in text_of(page)) is relevance


def test_a_file_that_is_no_json_is_told_by_name(tmp_path: Path) -> None:
    write_run(tmp_path)
    for name in ("samples.json", "metrics.json"):
        (tmp_path / name).write_text("{")
        with pytest.raises(DataError, match=rf"{name} is no"):
            make_report(tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert main(["report", str(tmp_path)]) == 1
    assert "holds none of metrics.json, metrics.csv, result.json and answers.jsonl" in capsys.readouterr().err


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = Samples([sample(), sample(exact=False, relevance=False)], [Cost(3, 0.5, 1.0, True)])
    written.write(tmp_path)
    read = read_samples(tmp_path)
    evidence = [[tuple(span) for span in one.evidence] for one in read.samples]
    assert [replace(one, evidence=spans) for one, spans in zip(read.samples, evidence, strict=True)] == written.samples
    assert read.costs == written.costs and not read_samples(tmp_path / "elsewhere").samples


def test_long_curves_are_thinned_and_what_is_no_number_is_left_out() -> None:
    rows = [{"step": str(i), "loss": "1.0" if i % 2 else ""} for i in range(10 * POINTS)]
    steps, values = curve([*rows, {"step": "7", "loss": "nan"}, {"step": "", "loss": "2"}, {}], "loss")
    assert len(steps) == POINTS and set(values) == {1.0} and steps[0] < 10 and steps[-1] > 10 * POINTS - 10


def test_spread_keeps_both_ends() -> None:
    assert spread([3, 5, 8], 4) == [3, 5, 8] and spread(range(101), 3) == [0, 50, 100] and spread([4, 5], 1) == [4]
    assert spread([], 2) == [] and spread([1, 2], 0) == []


def test_patches_looked_at() -> None:
    assert patches_looked_at([[0.25, 0.25], [0.25, 0.25]]) == pytest.approx(4)
    assert patches_looked_at([[1, 0], [0, 0]]) == pytest.approx(1)
