"""The ``.json`` beside a video: what it may say, and what is said of one that is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilamp.data.annotations import MAX_SECONDS, MAX_TEXT, Annotation, parse_annotation
from vilamp.samples import Question, SkipSample

ASKED = {"question": "what colour is the cup?", "answer": "red"}


def _parse(**fields: object) -> Annotation:
    return parse_annotation(json.dumps({"video": "mp4", "questions": [ASKED]} | fields).encode())


def test_the_least_that_a_file_can_hold() -> None:
    question = Question("what colour is the cup?", "red", query="what colour is the cup?", kind="other", evidence=())
    assert parse_annotation(json.dumps({"questions": [ASKED]}).encode()) == Annotation(None, (question,))


def test_everything_that_a_file_can_hold() -> None:
    full = ASKED | {"query": "cup", "kind": "colour", "evidence": [[1, 2.5], [7, 7]]}
    parsed = _parse(video=".mp4", questions=[full, ASKED], licence="not ours", id=7)
    assert parsed.video == "mp4"
    assert parsed.questions[0] == Question(**ASKED, query="cup", kind="colour", evidence=((1.0, 2.5), (7.0, 7.0)))
    assert len(parsed.questions) == 2


def test_null_is_the_same_as_nothing() -> None:
    nulls = ASKED | {"query": None, "kind": None, "evidence": None}
    assert _parse(video=None, questions=[nulls]) == _parse(video=None)


@pytest.mark.parametrize("source", ["grüße", "\ufeffgrüße", "日本語", "\U0001f600"])
def test_text_of_any_script(source: str) -> None:
    text = json.dumps({"questions": [{"question": source, "answer": "a"}]}, ensure_ascii=False)
    assert parse_annotation(text.encode()).questions[0].question == source
    assert parse_annotation(text.encode("utf-8-sig")).questions[0].question == source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "JSONDecodeError"),
        (b'{"video": "mp4",', "JSONDecodeError"),
        (b"\xff\xfe\xff", "UnicodeDecodeError"),
        (b"[" * 100_000, "more than 32 deep"),
        (b'{"questions": ' + b"[" * 32 + b"]" * 32 + b"}", "more than 32 deep"),
        (b"[]", r"the file must be an object, got \[\]"),
        (b'{"questions": [' + b"9" * 5000 + b"]}", "ValueError"),
        (b'{"questions": [{"question": "q", "answer": "a", "answer": "b"}]}', "'answer' is there more than once"),
    ],
)
def test_what_is_no_json_object(source: bytes, message: str) -> None:
    with pytest.raises(SkipSample, match=message) as caught:
        parse_annotation(source)
    assert caught.value.reason == "bad_json"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"questions": None}, "questions must be a list of 1 to 1000 objects, got nothing"),
        ({"questions": []}, "questions must be a list"),
        ({"questions": [ASKED] * 1001}, "questions must be a list"),
        ({"questions": [ASKED, "why?"]}, r"questions\[1\] must be an object, got 'why\?'"),
        ({"video": 3}, "video must be a text of 1 to 64 characters, got 3"),
        ({"video": ""}, "video must be a text"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SkipSample, match=message):
        _parse(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("question", None),
        ("question", " \n"),
        ("question", "x" * (MAX_TEXT + 1)),
        ("question", "half of a pair: \ud83d"),
        ("answer", None),
        ("answer", 7),
        ("query", ""),
        ("kind", "x" * 65),
        ("evidence", [1, 2]),
        ("evidence", [[1, 2, 3]]),
        ("evidence", [[2, 1]]),
        ("evidence", [[-1, 1]]),
        ("evidence", [["0", "1"]]),
        ("evidence", [[False, True]]),
        ("evidence", [[0, float("nan")]]),
        ("evidence", [[0, float("inf")]]),
        ("evidence", [[0, 10**400]]),
        ("evidence", [[0, MAX_SECONDS + 1]]),
    ],
)
def test_a_wrong_field_of_a_question_is_named(field: str, value: object) -> None:
    with pytest.raises(SkipSample, match=rf"questions\[1\]\.{field} must be") as caught:
        _parse(questions=[ASKED, ASKED | {field: value}])
    assert len(caught.value.detail) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["video", "questions", "question", "answer",
                                                                    "query", "kind", "evidence"]), inner),
)  # fmt: skip


@given(JSON)
def test_any_json_is_an_annotation_or_a_skip(value: object) -> None:
    try:
        parsed = parse_annotation(json.dumps(value).encode())
    except SkipSample as skip:
        assert skip.reason == "bad_json"
    else:
        assert parsed.questions
