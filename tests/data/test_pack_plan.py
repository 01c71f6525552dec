"""Which video a row means, and which sample goes into which shard."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilamp.data import annotations
from vilamp.data.annotations import MAX_BYTES, parse_annotation
from vilamp.data.packing.layouts import Row
from vilamp.data.packing.plan import PlannedSample, plan_samples, plan_shards
from vilamp.data.shard_sample import MAX_MEMBER_BYTES
from vilamp.data.tar_listing import is_safe_name

ASKED = {"question": "what?", "answer": "a cup"}


def _row(video: str | None, *questions: dict[str, Any], folder: str = "", source: str = "q.json:1") -> Row:
    return Row(source, folder, video, questions or (ASKED,))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.MKV", "c.webm", "c.mp4", "x.y/a.b.mp4", "set/d.mp4", "plain", "e.json", "secret.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "outside.mp4").write_bytes(b"not yours")
    (tmp_path / "videos" / "broken.mp4").symlink_to("nowhere.mp4")
    return tmp_path / "videos"


def _plan(videos: Path, *rows: Row) -> tuple[list[str], list[str]]:
    samples, left_out = plan_samples(rows, videos)
    return [sample.video for sample in samples], [entry.reason for entry in left_out]


def test_a_video_is_found_as_written_by_its_number_or_below_its_folder(videos: Path) -> None:
    rows = [_row("a.mp4"), _row("b.MKV"), _row("x.y/a.b"), _row("d", folder="set"), _row(str(videos / "set/d.mp4")),
            _row("a.mp4", folder="set"), _row("x.y\\a.b.mp4")]  # fmt: skip
    assert _plan(videos, *rows) == (["a.mp4", "b.MKV", "x.y/a.b.mp4", "set/d.mp4"], [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.mp4", "missing_file"),
        ("x.y", "not_a_file"),
        ("broken.mp4", "not_a_file"),
        ("c", "ambiguous_file"),
        ("../outside.mp4", "bad_path"),
        ("x.y/../../outside.mp4", "bad_path"),
        ("/etc/passwd", "bad_path"),
        ("a\n.mp4", "bad_path"),
        ("gpj\u202e.mp4", "bad_path"),
        (".", "bad_path"),
        ("x" * 300 + ".mp4", "missing_file"),
        ("a.mp4/b.mp4", "missing_file"),
        ("plain", "bad_name"),
        ("e.json", "bad_name"),
    ],
)
def test_what_is_no_video_of_the_folder_is_left_out(videos: Path, name: str, reason: str) -> None:
    assert _plan(videos, _row(name)) == ([], [reason])


def test_a_video_that_no_reader_takes_is_left_out_with_what_to_do(videos: Path) -> None:
    with (videos / "long.mp4").open("wb") as file:
        file.truncate(MAX_MEMBER_BYTES + 1)  # of holes, which take no room
    _, left_out = plan_samples([_row("long.mp4")], videos)
    assert [(entry.reason, "; ffmpeg -i FILE" in entry.detail) for entry in left_out] == [("too_large", True)]


@pytest.mark.parametrize(
    "name", ["Recording at 9.00.00\u202fAM.mov", "\u3000a\u00a0b.mp4", "\U0001f468\u200d\U0001f467.mp4"]
)
def test_a_name_may_hold_any_space_and_any_emoji(videos: Path, name: str) -> None:
    (videos / name).write_bytes(b"")
    samples, left_out = plan_samples([_row(name)], videos)
    assert ([sample.video for sample in samples], left_out) == ([name], [])
    assert is_safe_name(samples[0].key)


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_an_accent_may_be_apart_from_its_letter(videos: Path, written: str, asked: str) -> None:
    name = "Caf\xe9/fa\xe7ade.mp4"
    path = videos / unicodedata.normalize(written, name)
    path.parent.mkdir()
    path.write_bytes(b"")
    rows = [_row(unicodedata.normalize(form, name)) for form in (asked, written)]
    assert _plan(videos, *rows) == ([unicodedata.normalize(written, name)], []), "and it is one video"


def test_a_spelling_that_is_too_long_for_a_name_does_not_hide_the_other(videos: Path) -> None:
    name = "\uac01" * 60 + ".mp4"  # 184 bytes, and 544 in the spelling of macOS
    (videos / name).write_bytes(b"")
    assert _plan(videos, _row(unicodedata.normalize("NFD", name))) == ([name], [])
    assert _plan(videos, _row("\uac02" * 60 + ".mp4")) == ([], ["missing_file"])


def test_a_folder_behind_a_link_is_known_by_both_of_its_names(videos: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(videos)
    rows = [_row(str(link / "a.mp4")), _row(str(videos / "b.MKV"))]
    assert _plan(link, *rows) == (["a.mp4", "b.MKV"], [])


def test_all_questions_about_a_video_are_one_sample(videos: Path) -> None:
    more = {"question": "where?", "answer": "here"}
    samples, _ = plan_samples([_row("a.mp4"), _row("b.MKV"), _row("a", more, source="q.json:3")], videos)
    assert [sample.key for sample in samples] == ["a", "b"]
    assert samples[0].rows == ("q.json:1", "q.json:3")
    parsed = parse_annotation(samples[0].annotation())
    assert (parsed.video, [q.question for q in parsed.questions]) == ("mp4", ["what?", "where?"])
    assert parse_annotation(samples[1].annotation()).video == "mkv"


def test_text_alone_is_a_sample_for_each_row(videos: Path) -> None:
    samples, _ = plan_samples([_row(None, source="q.json:1"), _row(None, source="q.json:2")], videos)
    assert [(sample.key, sample.video) for sample in samples] == [("text/q_json_1", ""), ("text/q_json_2", "")]
    assert parse_annotation(samples[0].annotation()).video is None


def test_keys_have_no_dots_and_none_is_taken_twice(videos: Path) -> None:
    (videos / "x_y").mkdir()
    (videos / "x_y/a_b.mp4").write_bytes(b"")
    samples, _ = plan_samples([_row("c.webm"), _row("c.mp4"), _row("x.y/a.b.mp4"), _row("x_y/a_b.mp4")], videos)
    keys = [sample.key for sample in samples]
    assert len(set(keys)) == 4 and not any("." in key for key in keys)
    assert [key[:5] for key in keys] == ["c", "c-" + keys[1][2:5], "x_y/a", "x_y/a"]


@pytest.mark.parametrize(
    "question",
    [ASKED | {"question": " "}, ASKED | {"answer": "\ud83d"}, ASKED | {"kind": "k" * 65}, ASKED | {"id": "\ud83d"}],
)
def test_a_question_that_a_reader_would_refuse_is_left_out_alone(videos: Path, question: dict[str, Any]) -> None:
    samples, left_out = plan_samples([_row("a.mp4", question, ASKED)], videos)
    assert [len(sample.questions) for sample in samples] == [1]
    assert [(entry.questions, entry.reason) for entry in left_out] == [(1, "bad_json")]


def test_no_more_questions_than_a_reader_takes(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, left_out = plan_samples([_row("a.mp4", *[ASKED] * (annotations.MAX_QUESTIONS + 2))], videos)
    assert len(samples[0].questions) == annotations.MAX_QUESTIONS
    assert [entry.reason for entry in left_out] == ["too_many"] * 2
    long = {"question": "ü" * 90_000, "answer": "a"}
    samples, left_out = plan_samples([_row("a.mp4", *[long] * 7)], videos)
    assert len(samples[0].annotation()) <= MAX_BYTES
    assert [entry.reason for entry in left_out] == ["too_large"] * (7 - len(samples[0].questions))
    assert len(samples[0].questions) == 5


@given(st.lists(st.integers(0, 5000), max_size=30), st.integers(1, 20_000))
def test_shards_keep_the_order_and_the_size(sizes: list[int], limit: int) -> None:
    samples = [PlannedSample(f"k{i}", f"{i}.mp4", size, (ASKED,), ("r",)) for i, size in enumerate(sizes)]
    shards = plan_shards(samples, "train", limit)
    assert [sample for shard in shards for sample in shard.samples] == samples
    assert [shard.name for shard in shards] == [f"train-{i:06d}.tar" for i in range(len(shards))]
    bytes_of = [sum(sample.tar_bytes() for sample in shard.samples) for shard in shards]
    for i, (shard, size) in enumerate(zip(shards, bytes_of, strict=True)):
        assert shard.samples and (size <= limit or len(shard.samples) == 1)
        if i + 1 < len(shards):
            assert size + shards[i + 1].samples[0].tar_bytes() > limit, "the next would have fitted"


def test_the_digest_is_of_all_that_decides_the_content() -> None:
    base = PlannedSample("a", "a.mp4", 5, (ASKED,), ("r",))
    others = [
        PlannedSample("b", "a.mp4", 5, (ASKED,), ("r",)),
        PlannedSample("a", "b.mp4", 5, (ASKED,), ("r",)),
        PlannedSample("a", "a.mp4", 6, (ASKED,), ("r",)),
        PlannedSample("a", "a.mp4", 5, (ASKED | {"answer": "no cup"},), ("r",)),
    ]
    digests = {plan_shards([sample], "train", 1)[0].digest for sample in (base, *others)}
    assert len(digests) == 5
    assert plan_shards([base], "train", 1)[0].digest == plan_shards([base], "train", 99)[0].digest
