"""Annotations of every layout that is read, and what is said of rows that cannot be."""

from __future__ import annotations

import datetime
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilamp.data.annotations import parse_annotation
from vilamp.data.packing.choices import ANSWERS, RowError, pick_option, read_options
from vilamp.data.packing.layouts import Annotations, read_annotations
from vilamp.errors import DataError

TURNS = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cup."}]
CHOICE = {"video": "a.mp4", "question": "Which?", "options": ["red", "green", "blue"], "answer": "B"}
ASKED = "Which?\nA. red\nB. green\nC. blue\nAnswer with the letter of the right option."


def _write(path: Path, rows: list[Any]) -> Path:
    lines = "\n".join(json.dumps(row) for row in rows)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(rows))
    return path


def _read(tmp_path: Path, *rows: Any, name: str = "q.json", **options: Any) -> Annotations:
    return read_annotations(_write(tmp_path / name, list(rows)), **options)


def _lost(annotations: Annotations) -> list[tuple[str, str]]:
    return [(entry.row, entry.reason) for entry in annotations.left_out]


@pytest.mark.parametrize("name", ["q.json", "q.jsonl"])
def test_turns_become_questions_without_placeholders(tmp_path: Path, name: str) -> None:
    more = [{"from": "human", "value": "And\n<video>\nwhere?"}, {"from": "gpt", "value": "On a shelf."}]
    found = _read(tmp_path, {"id": "x", "video": "a.mp4", "query": "a cup", "conversations": TURNS + more}, name=name)
    assert (found.format, found.left_out) == ("conversations", [])
    [row] = found.rows
    assert (row.source, row.video) == (f"{name}:1", "a.mp4")
    assert row.questions == (
        {"question": "What is it?", "answer": "A cup.", "query": "a cup", "id": "x"},
        {"question": "And\nwhere?", "answer": "On a shelf.", "query": "a cup", "id": "x"},
    )


def test_text_alone_has_no_video(tmp_path: Path) -> None:
    plain = [{"from": "human", "value": "Two and two?"}, {"from": "gpt", "value": "Four."}]
    [row] = _read(tmp_path, {"conversations": plain}).rows
    assert row.video is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": TURNS}, "no_video"),
        ({"image": "a.jpg", "conversations": TURNS}, "no_video"),
        ({"video": "a.mp4", "conversations": TURNS[:1]}, "no_answer"),
        ({"video": "a.mp4", "conversations": TURNS[1:]}, "no_question"),
        ({"video": "a.mp4", "conversations": [{"from": "ghost", "value": "boo"}]}, "bad_row"),
        ({"video": "a.mp4", "conversations": "hello"}, "bad_row"),
        ({"video": {"path": 1}, "conversations": TURNS}, "bad_row"),
        ("no row at all", "bad_row"),
        (["a", "list"], "bad_row"),
    ],
)
def test_a_row_that_cannot_be_used_is_listed(tmp_path: Path, row: Any, reason: str) -> None:
    found = _read(tmp_path, {"video": "a.mp4", "conversations": TURNS}, row)
    assert len(found.rows) == 1
    assert _lost(found) == [("q.json:2", reason)]


def test_the_answered_turns_of_a_row_are_kept(tmp_path: Path) -> None:
    found = _read(tmp_path, {"video": "a.mp4", "conversations": [TURNS[0], *TURNS, TURNS[0]]})
    assert [len(row.questions) for row in found.rows] == [1]
    assert _lost(found) == [("q.json:1", "no_answer")] * 2


def test_a_broken_line_costs_itself_only(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({"video": "a", "conversations": TURNS}) + '\n{"video":\n\n[1]\n')
    found = read_annotations(tmp_path / "q.jsonl")
    assert _lost(found) == [("q.jsonl:2", "bad_row"), ("q.jsonl:3", "bad_row")]


@pytest.mark.parametrize("deep", ["[" * 100_000, "[" * 600 + "]" * 600, '{"a":' * 600 + "1" + "}" * 600])
def test_a_line_that_is_too_deep_costs_itself_only(tmp_path: Path, deep: str) -> None:
    good = json.dumps(CHOICE)
    (tmp_path / "q.jsonl").write_text("\n".join([good, deep, f'{{"video": "a", "id": {deep}}}', good]))
    found = read_annotations(tmp_path / "q.jsonl")
    assert len(found.rows) == 2
    assert [(entry.row, entry.reason) for entry in found.left_out] == [
        ("q.jsonl:2", "bad_row"),
        ("q.jsonl:3", "bad_row"),
    ]
    assert "more than 32 deep" in found.left_out[1].detail


@pytest.mark.parametrize("name", ["options", "evidence", "id"])
def test_a_value_that_is_too_deep_costs_its_row_only(tmp_path: Path, name: str) -> None:
    value: Any = [1]
    for _ in range(600):
        value = [value]
    assert _lost(_read(tmp_path, CHOICE, CHOICE | {name: value})) == [("q.json:2", "bad_row")]
    text = "[" * 600 + "]" * 600
    lost = [] if name == "id" else [("q.json:2", f"bad_{name}")]
    assert _lost(_read(tmp_path, CHOICE, CHOICE | {name: text})) == lost


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B.", 1, "1", "green", "B. green", " green "])
def test_an_answer_is_a_letter_an_index_or_a_text(tmp_path: Path, answer: Any) -> None:
    found = _read(tmp_path, CHOICE | {"answer": answer, "type": "colour"})
    assert (found.format, found.left_out) == ("qa", [])
    assert found.rows[0].questions == ({"question": ASKED, "answer": "B", "query": "Which?", "kind": "colour"},)


@pytest.mark.parametrize(
    "fields",
    [
        {"a0": "red", "a1": "green", "a2": "blue", "a3": ""},
        {"option_1": "red", "option_2": "green", "option_3": "blue"},
        {"A": "red", "B": "green", "C": "blue"},
        {"options": '["red", "green", "blue"]'},
        {"options": "red\ngreen\nblue"},
        {"candidates": ["A. red", "B. green", "C. blue"]},
        {"choices": ["(A) red", "(B) green", "(C) blue"]},
    ],
)
def test_options_in_their_many_forms(tmp_path: Path, fields: dict[str, Any]) -> None:
    row = {key: value for key, value in CHOICE.items() if key != "options"}
    found = _read(tmp_path, row | fields)
    assert [row.questions[0]["question"] for row in found.rows] == [ASKED]


def test_an_index_that_is_also_a_text_is_not_guessed_at(tmp_path: Path) -> None:
    row = CHOICE | {"options": ["2", "1", "0"], "answer": "2"}
    assert _lost(_read(tmp_path, row)) == [("q.json:1", "ambiguous_answer")]
    answers = [_read(tmp_path, row, answers=kind).rows[0].questions[0]["answer"] for kind in ("index", "text")]
    assert answers == ["C", "A"]
    assert _read(tmp_path, row | {"answer": 2}).rows[0].questions[0]["answer"] == "C", "a number is an index"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"answer": "D"}, "no_such_option"),
        ({"answer": 3}, "no_such_option"),
        ({"answer": "pink"}, "no_such_option"),
        ({"answer": True}, "no_such_option"),
        ({"answer": None}, "no_answer"),
        ({"answer": ""}, "no_answer"),
        ({"question": None}, "no_question"),
        ({"video": None}, "no_video"),
        ({"options": ["red"]}, "bad_options"),
        ({"options": ["red", ""]}, "bad_options"),
        ({"options": '["red", '}, "bad_options"),
        ({"options": 7}, "bad_options"),
    ],
)
def test_a_choice_that_cannot_be_used_is_listed(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    assert _lost(_read(tmp_path, CHOICE, CHOICE | fields)) == [("q.json:2", reason)]


def test_a_question_without_options_is_open(tmp_path: Path) -> None:
    [row] = _read(tmp_path, {"video_id": 42, "question": "How many?", "answer": 3}).rows
    assert (row.video, row.questions) == ("42", ({"question": "How many?", "answer": "3"},))


@pytest.mark.parametrize("name", ["q.json", "q.csv"])
def test_evidence_stays_with_its_questions(tmp_path: Path, name: str) -> None:
    spans = [[1, 2.5], [7, 9]]
    if name == "q.csv":
        (tmp_path / name).write_text(f'video,question,answer,evidence\na.mp4,Is it?,yes,"{spans}"\na.mp4,Is it?,no,\n')
        found = read_annotations(tmp_path / name)
    else:
        asked = {"video": "a.mp4", "question": "Is it?", "answer": "yes"}
        found = _read(tmp_path, {**asked, "evidence": spans}, {**asked, "answer": "no", "evidence": []})
    assert [row.questions[0].get("evidence") for row in found.rows] == [[[1.0, 2.5], [7.0, 9.0]], None]
    written = json.dumps({"video": "mp4", "questions": found.rows[0].questions}).encode()
    assert parse_annotation(written).questions[0].evidence == ((1.0, 2.5), (7.0, 9.0))


def test_the_turns_of_a_row_share_its_evidence(tmp_path: Path) -> None:
    [row] = _read(tmp_path, {"video": "a.mp4", "conversations": TURNS * 2, "evidence": [[0, 1]]}).rows
    assert [question["evidence"] for question in row.questions] == [[[0.0, 1.0]]] * 2


@pytest.mark.parametrize("evidence", [[1, 2], [[2, 1]], [[-1, 2]], [["a", "b"]], "0-3", "[[1, NaN]]", 7, {"start": 1}])
def test_evidence_that_is_no_spans_is_told(tmp_path: Path, evidence: Any) -> None:
    found = _read(tmp_path, {"video": "a.mp4", "question": "Is it?", "answer": "yes", "evidence": evidence})
    assert found.rows == [] and _lost(found) == [("q.json:1", "bad_evidence")]
    assert found.left_out[0].video == "a.mp4"


def test_csv_with_columns_of_other_names(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("clip,Frage,a0,a1,truth\nx/1,Wo?,hier,dort,1\nx/2,Wann?,nie\n", encoding="utf-8-sig")
    with pytest.raises(
        DataError, match="there is 'clip', 'Frage', 'a0', 'a1', 'truth'; name those to read with --column"
    ):
        read_annotations(path)
    found = read_annotations(path, columns={"video": "clip", "question": "Frage", "answer": "truth"})
    assert [(row.video, row.questions[0]["answer"]) for row in found.rows] == [("x/1", "B")]
    assert _lost(found) == [("q.csv:2", "bad_row")]


def test_a_table_in_another_encoding_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_bytes("video,question,answer\na.mp4,Größe?,ja\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"q\.csv cannot be read: UnicodeDecodeError: .*; save it as UTF-8$"):
        read_annotations(tmp_path / "q.csv")


@pytest.mark.parametrize("name", ["q.csv", "q.tsv"])
def test_a_column_that_is_there_twice_is_an_error(tmp_path: Path, name: str) -> None:
    text = "video,question,answer,,answer,\na.mp4,what?,red,,blue,\n"
    (tmp_path / name).write_text(text if name == "q.csv" else text.replace(",", "\t"))
    with pytest.raises(DataError, match=r"there is more than one column 'answer'; rename or remove all but one"):
        read_annotations(tmp_path / name)
    (tmp_path / "unnamed.csv").write_text(text.replace("red,,blue", "red,,").replace(",,answer,", ",,,"))
    assert len(read_annotations(tmp_path / "unnamed.csv").rows) == 1


@pytest.mark.parametrize("name", ["q.json", "q.jsonl"])
def test_a_name_that_is_twice_in_a_row_costs_the_row(tmp_path: Path, name: str) -> None:
    twice = json.dumps(CHOICE)[:-1] + ', "answer": "C"}'
    rows = [json.dumps(CHOICE), twice, json.dumps(CHOICE)]
    (tmp_path / name).write_text("\n".join(rows) if name == "q.jsonl" else f"[{','.join(rows)}]")
    found = read_annotations(tmp_path / name)
    assert (len(found.rows), _lost(found)) == (2, [(f"{name}:2", "bad_row")])
    assert found.left_out[0].detail == "'answer' is there more than once"


@pytest.mark.parametrize("last", ['b.mp4,which?,"red"', "b.mp4,which?,red"])
def test_a_quotation_mark_that_is_not_closed_takes_no_rows_into_its_cell(tmp_path: Path, last: str) -> None:
    rows = ['a.mp4,how long?,"5 inch', *(f"a.mp4,is it {i}?,yes" for i in range(300)), last]
    (tmp_path / "q.csv").write_text("\n".join(["video,question,answer", *rows]))
    with pytest.raises(DataError, match=r"line 303 or before, where a quotation mark opens a cell"):
        read_annotations(tmp_path / "q.csv", form="qa")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('"answer": NaN', "no_answer"),
        ('"answer": 1e999', "no_answer"),
        ('"answer": "A", "options": ["red", NaN, "blue"]', "bad_options"),
        ('"answer": "red", "kind": NaN, "query": NaN', None),
        ('"answer": "A", "a0": "red", "a1": "blue", "a2": NaN', None),
    ],
)
def test_nan_is_a_missing_value(tmp_path: Path, row: str, reason: str | None) -> None:
    (tmp_path / "q.json").write_text(f'[{{"video": "a.mp4", "question": "which?", {row}}}]')
    found = read_annotations(tmp_path / "q.json", form="qa")
    assert _lost(found) == ([("q.json:1", reason)] if reason else [])
    assert not re.search(r"\bnan\b", str(found.rows), re.IGNORECASE)


def test_the_folders_of_a_set_are_read_in_a_fixed_order(tmp_path: Path) -> None:
    for folder in ("b_30_s", "a_0_30_s"):
        (tmp_path / folder / "academic/deep").mkdir(parents=True)
        _write(tmp_path / folder / "academic/deep/meta.json", [{"no": "annotation"}])
        _write(tmp_path / folder / "oe.json", [{"video": "academic/1.mp4", "conversations": TURNS}])
    found = read_annotations(tmp_path)
    assert found.format == "llava-video-178k"
    assert [(row.source, row.folder) for row in found.rows] == [
        ("a_0_30_s/oe.json:1", "a_0_30_s"),
        ("b_30_s/oe.json:1", "b_30_s"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("q.json", "{", {}, "cannot be read: JSONDecodeError"),
        ("q.json", "[" * 100_000, {}, "cannot be read: RecursionError"),
        ("q.json", "{}", {}, "a list of rows should be its outermost value, got dict"),
        ("q.json", "[]", {}, "no row of the first 100 can be read, it has none"),
        ("q.csv", "", {}, "no row of the first 100 can be read, it has none"),
        (
            "q.csv",
            "\nvideo,question,answer\na.mp4,?,a",
            {},
            "the first: the row has not as many cells",
        ),
        ("q.json", "[{}]", {}, "no row of the first 100 can be read; the first: it has no fields"),
        ("q.txt", "", {}, "one of .json, .jsonl, .csv, .tsv, .parquet"),
        ("q.json", '[{"a": 1}]', {}, "neither conversations nor questions"),
        ("q.csv", "video, question, answer\na.mp4, a, b", {}, "there is 'video', ' question', ' answer';"),
        ("q.json", '{"a": 1}\n{"a": 2}', {}, r"q\.json cannot be read: .*, name it \.jsonl$"),
        ("q.json", '{"rows": []}', {}, r"^\S*q\.json: a list of rows should be its outermost value, got dict$"),
        ("q.json", "[]", {"form": "qa"}, "there are no rows"),
        ("q.json", "[]", {"form": "llava-video-178k"}, "reads the folder of the set"),
        ("q.json", "[]", {"columns": {"quetsion": "Q"}}, "--column quetsion=...: there is no such field"),
    ],
)
def test_what_cannot_be_read_at_all_is_an_error(
    tmp_path: Path, name: str, content: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_annotations(tmp_path / name, **options)


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import Table, parquet

    parquet.write_table(Table.from_pylist([CHOICE]), tmp_path / "q.parquet")
    assert read_annotations(tmp_path / "q.parquet").rows[0].questions[0]["question"] == ASKED
    twice = Table.from_arrays([["a.mp4"], ["a"], ["b"]], names=["video", "answer", "answer"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="more than one column 'answer'"):
        read_annotations(tmp_path / "twice.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"bad\.parquet cannot be read"):
        read_annotations(tmp_path / "bad.parquet")


def test_values_of_a_table_that_are_neither_text_nor_number(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import Table, parquet

    row = {"video": "a.mp4", "question": "which?", "answer": "red", "id": datetime.date(2024, 1, 31)}
    columns = [
        {"answer": b"red"},
        {"options": [{"id": "A", "text": "red"}, {"id": "B", "text": "blue"}], "answer": "A"},
    ]
    for number, other in enumerate([{}, *columns]):
        parquet.write_table(Table.from_pylist([row | other]), tmp_path / f"{number}.parquet")
    assert read_annotations(tmp_path / "0.parquet").rows[0].questions[0]["id"] == "2024-01-31"
    lost = [read_annotations(tmp_path / f"{number}.parquet").left_out[0].reason for number in (1, 2)]
    assert lost == ["no_answer", "bad_options"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # importing it then fails as if it were not there
    (tmp_path / "q.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"needs pyarrow.*vilamp-lightning\[parquet\]"):
        read_annotations(tmp_path / "q.parquet")


VALUES = st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.sampled_from("AaBE") | st.text(max_size=4)


@given(st.lists(VALUES, max_size=5) | VALUES, VALUES, st.sampled_from((None, *ANSWERS)))
def test_any_options_and_answer_are_one_of_the_options_or_refused(options: Any, answer: Any, kind: str | None) -> None:
    try:
        texts = read_options(options, {}, "a.mp4")
        chosen = pick_option(texts, answer, kind, "a.mp4")
    except RowError as error:
        assert error.reason in {"bad_options", "no_such_option", "ambiguous_answer"}
    else:
        assert 0 <= chosen < len(texts)
