"""The report of an evaluation: its scores, its heat map, and what one that was killed can tell."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import html5lib
import numpy as np
import pytest
from made_runs import HOSTILE, SCORES, sample, write_evaluation

from vilamp.cli import main
from vilamp.errors import DataError
from vilamp.report.heatmap import grid
from vilamp.report.make import make_report
from vilamp.report.samples import Samples

HTML, SVG = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/2000/svg}"


def parsed(file: Path) -> ET.Element:
    """The page, which has no error for a parser that forgives none."""
    return html5lib.HTMLParser(strict=True).parse(file.read_text(encoding="utf-8"))


def words(element: ET.Element, tag: str) -> list[str]:
    return ["".join(found.itertext()) for found in element.iter(tag)]


def tiles(page: ET.Element) -> dict[str, str]:
    return dict(zip(words(page, f"{HTML}dt"), words(page, f"{HTML}dd"), strict=True))


def chart(page: ET.Element, name: str) -> list[str]:
    """The words in a chart."""
    return words(next(one for one in page.iter(f"{HTML}figure") if one.get("id") == name), f"{SVG}text")


def test_the_scores_of_each_way_of_answering_and_of_each_group(tmp_path: Path) -> None:
    report = make_report(write_evaluation(tmp_path))
    names = {"heatmap-generation", "scores", "scores_by_kind", "scores_by_length"}
    assert set(report.pictures) == names
    page = parsed(report.file)
    assert tiles(page) == {
        "accuracy, generation": "0.500",
        "accuracy, likelihood": "0.000",
        "visual tokens": "1040",
        "peak memory": "0.71 GiB",
        "seconds for all answers": "4.8",
        "questions": "4",
        "questions asked": "3",
    }
    assert {"0.625", "0.000", "generation", "likelihood"} <= set(chart(page, "scores"))
    lengths = [word for word in chart(page, "scores_by_length") if word in ("1000", "2000", "10000")]
    assert lengths == ["1000", "2000", "10000"], "in the order of numbers"
    assert any(word.startswith("<script>") for word in chart(page, "scores_by_kind"))
    notes = [element for element in page.iter(f"{HTML}p") if element.get("class") == "note"]
    none = "There are none: an evaluation looks at some at its very end, if it asks about videos."
    assert ["".join(note.itertext()) for note in notes] == [HOSTILE, none]
    unusable = next(table for table in words(page, f"{HTML}details") if table.startswith("Samples"))
    assert unusable.endswith(f"{HOSTILE}decode{HOSTILE}"), "and no other question"


def test_the_heat_map_has_every_cell_in_its_place_on_the_page(tmp_path: Path) -> None:
    lengths, depths, values = grid(SCORES)
    assert (lengths, depths) == ([1000, 2000, 10_000], [0.0, 1.0])
    np.testing.assert_array_equal(values, [[0.25, np.nan, 1.0], [0.75, 0.125, np.nan]])
    told = chart(parsed(make_report(write_evaluation(tmp_path)).file), "heatmap-generation")
    assert {"1,000", "2,000", "10,000", "0%", "100%"} <= set(told) and "nan" not in told
    assert [word for word in told if word in ("0.25", "1.00", "0.75", "0.12")] == ["0.25", "1.00", "0.75", "0.12"]


def test_questions_are_shown_closely_and_missing_ones_are_counted(tmp_path: Path) -> None:
    Samples([sample(), sample(exact=False)], unseen=3).write(write_evaluation(tmp_path))
    page = parsed(make_report(tmp_path).file)
    assert len(page.findall(f".//{HTML}article")) == 2
    told = "".join(page.itertext())
    assert "1 with a right and 1 with a wrong answer, from the start of the benchmark" in told
    assert "Missing here: 3, whose videos could be read no more" in told


def test_another_grouping_by_cells_is_no_heat_map(tmp_path: Path) -> None:
    result = json.loads((write_evaluation(tmp_path) / "result.json").read_text())
    result["scores"] = {"generation": {"accuracy": 0.5, "accuracy/cell/blood": 0.5}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert set(make_report(tmp_path).pictures) == {"scores", "scores_by_cell"}


def test_a_killed_evaluation_tells_of_its_answers_and_that_it_has_not_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(write_evaluation(tmp_path, ended=False))]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    page = parsed(tmp_path / "report.html")
    assert "This evaluation has not ended" in "".join(page.itertext())
    assert tiles(page) == {
        "accuracy_answered, generation": "1.000",
        "accuracy_answered, likelihood": "0.000",
        "seconds for all answers": "3.2",
        "questions asked": "2",
    }


def test_an_evaluation_without_an_answer_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text("")
    assert tiles(parsed(make_report(tmp_path).file))["questions asked"] == "0"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("result.json", "{", r"result\.json is no JSON"),
        ("result.json", "{}", r"holds no evaluation that can be read: KeyError: 'counts'"),
        ("answers.jsonl", "1\n", r"answers\.jsonl, line 1 holds a int"),
        ("answers.jsonl", '{"key": "a"}\nno\n', r"answers\.jsonl, line 2 is no JSON"),
    ],
)
def test_what_no_evaluation_writes_is_told_by_name(tmp_path: Path, file: str, content: str, message: str) -> None:
    (write_evaluation(tmp_path) / file).write_text(content)
    with pytest.raises(DataError, match=message):
        make_report(tmp_path)
