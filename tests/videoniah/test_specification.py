"""Specifications: the same inputs give the same one, its numbers fit, and bad inputs are one clear message."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numbered
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilamp.cli import main
from vilamp.errors import DataError
from vilamp.videoniah.build import Wanted, build, read_needles
from vilamp.videoniah.example import make_example
from vilamp.videoniah.spec import Spec, read_spec, write_spec


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three haystacks of 60 frames, needles of 3, 4 and 5."""
    folder = tmp_path_factory.mktemp("numbered")
    numbered.write_videos(folder, haystacks=3)
    return folder


def made(videos: Path, wanted: Wanted, told: list[str] | None = None) -> Spec:
    needles = read_needles(videos / "needles.jsonl", videos, {})
    return build([videos / "hay"], needles, videos, wanted, (told if told is not None else []).append)


@given(
    lengths=st.lists(st.integers(6, 60), min_size=1, max_size=3, unique=True),
    depths=st.lists(st.floats(0, 1), min_size=1, max_size=3, unique=True),
    questions=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_a_specification_is_a_function_of_its_inputs_and_its_numbers_fit(
    videos: Path, lengths: list[int], depths: list[float], questions: int, seed: int
) -> None:
    wanted = Wanted(lengths, depths, questions=questions, seed=seed)
    spec = made(videos, wanted)
    assert spec == made(videos, wanted)
    assert len(spec.cases) == len(lengths) * len(depths) * questions
    assert {(case.length, case.depth) for case in spec.cases} == {(n, d) for n in lengths for d in depths}
    assert len({case.id for case in spec.cases}) == len(spec.cases)
    of_question: dict[str, set[int]] = {}
    for case in spec.cases:
        of_question.setdefault(case.id.partition("/")[0], set()).add(case.haystack)
        rest = case.length - spec.files[case.needle].frames
        assert case.before == round(case.depth * rest) and 0 <= case.before <= rest
        assert case.evidence == [[case.before + 1.0, case.before + 2.0]]
    assert all(len(haystacks) == 1 for haystacks in of_question.values()), "lengths and depths differ in nothing else"
    write_spec(spec, videos / "spec.jsonl")
    assert read_spec(videos / "spec.jsonl") == spec


def test_other_seeds_draw_others(videos: Path) -> None:
    drawn = {
        json.dumps([case.id for case in made(videos, Wanted([20], [0.5], questions=1, seed=s)).cases]) for s in range(9)
    }
    assert len(drawn) > 1


@pytest.mark.parametrize(
    ("how", "haystacks", "left_over"),
    [("join", [[0, 1]], ["1 haystack(s) are left over"]), ("loop", [[0] * 2, [1] * 2, [2] * 2], [])],
)
def test_short_haystacks_are_joined_or_begun_again_where_that_is_asked_for(
    videos: Path, how: str, haystacks: list[list[int]], left_over: list[str]
) -> None:
    told: list[str] = []
    spec = made(videos, Wanted([100], when_short=how), told)
    names = [file.path for file in spec.files]
    numbers = [[int(names[file][len("hay/") :].removesuffix(".mp4")) for file in one] for one in spec.haystacks]
    assert numbers == haystacks
    assert [line[: len(left)] for line, left in zip(told, left_over, strict=True)] == left_over


def run(videos: Path, *more: str, needles: str = "needles.jsonl", haystack: str = "hay") -> Sequence[str]:
    out = ["--out", str(videos / "out.jsonl")]
    return ["videoniah", "build", str(videos / haystack), "--needles", str(videos / needles), *out, *more]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--lengths", "100"], r"hay/0.mp4 has 60 frames .* needs 97; set smaller --lengths, or --when-short join"),
        (["--lengths", "1000", "--when-short", "join"], "all haystacks together have 180 frames"),
        (["--lengths", "5"], r"a needle has 5 frames .* set longer --lengths"),
        (["--lengths", "20", "20"], "--lengths must be different"),
        (["--lengths", "20", "--depths", "1.5"], "--depths must be shares from 0 to 1"),
        (["--lengths", "20", "--questions", "0"], "--questions must be at least 1"),
        (["--fps", "0"], "--fps must be positive"),
        (["--column", "frage=x"], "--column FIELD=NAME: there is no field 'frage'"),
    ],
)
def test_what_cannot_be_built_is_one_message_with_what_to_change(
    videos: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert main(run(videos, *given)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert not (videos / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"haystack": "none.mp4"}, r"there is no video .*none\.mp4"),
        ({"haystack": "clip.txt"}, r"clip\.txt cannot be used"),
        ({"haystack": "empty"}, "there is no video in"),
        ({"needles": "none.jsonl"}, r"there is no .*none\.jsonl; set --needles"),
        ({"needles": "bad.jsonl"}, r"bad\.jsonl cannot be used: bad\.jsonl:1: no answer"),
        ({"needles": "twice.jsonl"}, r"twice\.jsonl:2: the id 'x' is that of twice\.jsonl:1, too"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    videos: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], message: str
) -> None:
    (videos / "clip.txt").write_text("no video")
    (videos / "empty").mkdir(exist_ok=True)
    (videos / "bad.jsonl").write_text('{"video": "clip/0.mp4", "question": "What?"}\n')
    row = '{"id": "x", "video": "clip/0.mp4", "question": "What?", "answer": "red"}\n'
    (videos / "twice.jsonl").write_text(2 * row)
    assert main(run(videos, "--lengths", "20", **changed)) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_specification_that_is_none_or_damaged_is_refused(videos: Path, tmp_path: Path) -> None:
    file = tmp_path / "spec.jsonl"
    with pytest.raises(DataError, match="there is no specification"):
        read_spec(file)
    write_spec(made(videos, Wanted([20], [0.5])), file)
    head, first, *others = file.read_text().splitlines(keepends=True)
    for content, message in [
        (first, "first line should have the format 'videoniah/1', got None"),
        (head + first[:20], "line 2 cannot be read"),
        (head, "it has no case"),
        (head + first.replace('"needle"', '"nadel"'), "line 2: .*nadel"),
        (head + first.replace('"length": 20', '"length": 90'), r"case n\d/20/0.5: 8\d frames of its haystack"),
    ]:
        file.write_text(content)
        with pytest.raises(DataError, match=message):
            read_spec(file)
    file.write_text("".join([head, first, *others]))
    assert len(read_spec(file).cases) == 3


def test_the_example_is_the_same_bytes_again_and_no_haystack_shows_what_a_needle_does(tmp_path: Path) -> None:
    from vilamp.videoniah.example import IN_HAYSTACKS, IN_NEEDLES

    assert not set(IN_HAYSTACKS.colours) & set(IN_NEEDLES.colours)
    assert not set(IN_HAYSTACKS.shapes) & set(IN_NEEDLES.shapes)
    for name in ("one", "two"):
        make_example(tmp_path / name, 1, 70, 2, seed=3)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 4
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    rows = [json.loads(line) for line in (tmp_path / "one" / "needles.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["colour", "shape"]
    assert rows[0]["answer"] in IN_NEEDLES.colours and rows[1]["answer"] in IN_NEEDLES.shapes


def test_an_example_that_cannot_be_made_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    short = ["videoniah", "example", "--out", str(tmp_path / "short"), "--lengths", "50"]
    for arguments, told in (
        (short, "the longest of --lengths more than 60, which a needle may have"),
        (["videoniah", "example", "--out", str(tmp_path / "file" / "in")], "give another --out"),
    ):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and told in said
    assert not (tmp_path / "short").exists()
