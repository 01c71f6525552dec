"""Anybody's own file as a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vilamp.benchmark import Graded
from vilamp.benchmarks.own_file import OwnMultipleChoice, OwnOpenEnded
from vilamp.errors import ConfigError, DataError

ROWS: list[dict[str, Any]] = [
    {"id": "x", "video": "a.mp4", "question": "Who?", "options": ["he", "she"], "answer": "B", "type": "person"},
    {"video": "sub/b.mp4", "question": "How many?", "candidates": ["A. one", "B. two", "C. six"], "answer": "six"},
    {"video": "a.mp4", "question": "Which?", "a0": "left", "a1": "right", "answer": 0, "query": "a door"},
]


def _file(tmp_path: Path, rows: Any) -> str:
    (tmp_path / "own.json").write_text(json.dumps(rows))
    return str(tmp_path / "own.json")


def test_options_are_found_under_their_usual_names(tmp_path: Path) -> None:
    benchmark = OwnMultipleChoice(_file(tmp_path, ROWS), str(tmp_path))
    items = benchmark.items()
    assert [(item.key, item.options, item.gold) for item in items] == [
        ("x", ("he", "she"), (1,)),
        ("1", ("one", "two", "six"), (2,)),
        ("2", ("left", "right"), (0,)),
    ]
    assert items[0].groups == {"kind": ("person",)} and items[2].query == "a door"
    assert items[1].video is not None and items[1].video.path == tmp_path / "sub" / "b.mp4"
    prompt = benchmark.ask(items[0], [])
    assert prompt.text == "Who?\nA. he\nB. she\nAnswer with the letter of the right option."
    assert prompt.continuations == ("A", "B")
    graded = [Graded(item, benchmark.judge(item, text)) for item, text in zip(items, ("B.", "C", ""), strict=True)]
    found = benchmark.figures(graded)
    assert found == pytest.approx({"accuracy": 2 / 3, "accuracy_answered": 2 / 3, "accuracy/kind/person": 1})
    assert not graded[2].verdict.readable


def test_columns_of_other_names_are_named(tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "frage": "Wer?", "options": ["er", "sie"], "answer": "sie"}]
    path = _file(tmp_path, rows)
    with pytest.raises(DataError, match=r"own\.json:1: no question; the columns are video, frage"):
        OwnMultipleChoice(path, "").items()
    assert OwnMultipleChoice(path, "", {"question": "frage"}).items()[0].question == "Wer?"
    with pytest.raises(ConfigError, match="no field 'fragen'"):
        OwnMultipleChoice(path, "", {"fragen": "frage"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "Z"}, r"own\.json:2: 'Z' is no letter, number or text"),
        ({"answer": None}, r"own\.json:2: no answer"),
        ({"candidates": ["one"]}, r"own\.json:2: 2 to 26 options"),
        ({"candidates": None}, r"own\.json:2: no options; .*benchmark=open_ended"),
        ({"video": None}, r"own\.json:2: no video"),
    ],
    ids=str,
)
def test_a_row_that_cannot_be_used_is_an_error(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = _file(tmp_path, [ROWS[0], ROWS[1] | change, ROWS[2]])
    with pytest.raises(DataError, match=message):
        OwnMultipleChoice(path, "").items()


def test_a_file_that_is_none_or_empty_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*nowhere\.json"):
        OwnMultipleChoice(str(tmp_path / "nowhere.json"), "").items()
    with pytest.raises(DataError, match="is empty"):
        OwnOpenEnded(_file(tmp_path, []), "").items()
    with pytest.raises(DataError, match="cannot be read"):
        (tmp_path / "cut.json").write_text('[{"question": "Wh')
        OwnOpenEnded(str(tmp_path / "cut.json"), "").items()


def test_open_answers_are_compared_without_what_says_nothing(tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "question": "What?", "answer": answer} for answer in ("a red door", "Two", "no")]
    benchmark = OwnOpenEnded(_file(tmp_path, rows), "")
    items = benchmark.items()
    texts = ["The red door.", "Two", ""]
    graded = [Graded(i, benchmark.judge(i, text), text=text) for i, text in zip(items, texts, strict=True)]
    found = benchmark.figures(graded)
    assert found == pytest.approx({"accuracy": 2 / 3, "accuracy_answered": 2 / 3, "accuracy_exact": 1 / 3})
    assert benchmark.ask(items[0], []).continuations == ()
