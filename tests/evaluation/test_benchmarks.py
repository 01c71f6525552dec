"""Each benchmark on its miniature: what is read, what is asked, and scores computed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import miniatures
import pytest

from vilamp.benchmark import UNANSWERED, Benchmark, Graded, Item
from vilamp.benchmarks import activitynetqa, egoschema, longvideobench, lvbench, mlvu, videomme
from vilamp.errors import DataError

TIMES = [float(second) for second in range(miniatures.SECONDS)]

BENCHMARKS: dict[str, Callable[..., Benchmark]] = {
    "videomme": lambda root, **more: videomme.VideoMME(str(miniatures.write_videomme(root)), **more),
    "longvideobench": lambda root, **more: longvideobench.LongVideoBench(
        str(miniatures.write_longvideobench(root)), **more
    ),
    "mlvu": lambda root, **more: mlvu.MLVU(str(miniatures.write_mlvu_dev(root)), **more),
    "lvbench": lambda root, **more: lvbench.LVBench(str(miniatures.write_lvbench(root)), f"{root}/videos", **more),
    "egoschema": lambda root, **more: egoschema.EgoSchema(
        str(miniatures.write_egoschema(root)), f"{root}/videos", **more
    ),
    "activitynetqa": lambda root, **more: activitynetqa.ActivityNetQA(
        str(miniatures.write_activitynetqa(root)), f"{root}/videos", **more
    ),
}


def figures(benchmark: Benchmark, items: list[Item], texts: list[str | None]) -> dict[str, float]:
    """The figures of generated answers; None: the question was not asked."""
    return benchmark.figures(
        [
            Graded(item, UNANSWERED, answered=False)
            if text is None
            else Graded(item, benchmark.judge(item, text), text=text)
            for item, text in zip(items, texts, strict=True)
        ]
    )


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_file_with_fewer_questions_than_were_published_is_refused_and_with_partial_noted(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"of [0-9,]+ questions are there.*benchmark\.partial=true|there is no .*json"):
        BENCHMARKS[name](tmp_path / "whole").items()
    benchmark = BENCHMARKS[name](tmp_path / "part", partial=True)
    items = benchmark.items()
    assert len({item.key for item in items}) == len(items) > 1
    assert any("not comparable" in note for note in benchmark.notes)


def test_a_whole_file_needs_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videomme, "QUESTIONS", 6)
    monkeypatch.setattr(videomme, "VIDEOS_PER_DURATION", 1)
    monkeypatch.setattr(longvideobench, "QUESTIONS", 4)
    monkeypatch.setattr(mlvu, "DEV", {"1_plotQA": ("plotQA", 2), "7_topic_reasoning": ("topic_reasoning", 2)})
    monkeypatch.setattr(lvbench, "QUESTIONS", 3)
    monkeypatch.setattr(egoschema, "QUESTIONS", 2)
    monkeypatch.setattr(activitynetqa, "QUESTIONS", {"test": 4})
    for name, build in BENCHMARKS.items():
        benchmark = build(tmp_path / name)
        assert benchmark.items()
        assert not [note for note in benchmark.notes if "not comparable with scores on all" in note]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_without_the_file_says_where_to_get_it(name: str, tmp_path: Path) -> None:
    benchmark = BENCHMARKS[name](tmp_path / "there")
    empty = tmp_path / "empty"
    empty.mkdir()
    benchmark.root = empty  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"there is no .*empty.*(huggingface\.co|github\.com)"):
        benchmark.items()


class TestVideoMME:
    """Video-MME."""

    def test_reading(self, tmp_path: Path) -> None:
        items = BENCHMARKS["videomme"](tmp_path, partial=True).items()
        assert [item.key for item in items] == ["001-1", "001-2", "002-1", "002-2", "003-1", "003-2"]
        assert [item.gold for item in items] == [(1,), (3,)] * 3
        videos = [item.video.path for item in items if item.video is not None]
        assert [path.name for path in videos[::2]] == ["aaa.mp4", "b-b.MP4", "_cc.mp4"]
        assert [path.is_file() for path in videos[::2]] == [True, True, False]
        assert items[0].groups == {
            "duration": ("short",),
            "domain": ("Knowledge",),
            "sub_category": ("Doors",),
            "task_type": ("Counting",),
        }

    def test_asking(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["videomme"](tmp_path, partial=True)
        prompt = benchmark.ask(benchmark.items()[0], TIMES)
        assert prompt.text == (
            "Select the best answer to the following multiple-choice question based on the video. Respond with only "
            "the letter (A, B, C, or D) of the correct option.\nWhat is shown at place 1?\n"
            "A. A door.\nB. A window.\nC. A roof.\nD. None.\nThe best answer is:"
        )
        assert prompt.continuations == ("A", "B", "C", "D")

    def test_subtitles_of_the_sampled_frames_stand_before(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["videomme"](tmp_path, partial=True, subtitles=True)
        items = benchmark.items()
        shown = "This video's subtitles are listed below:\nA red door opens.\nWho is there?\nSelect the best"
        assert benchmark.ask(items[0], TIMES).text.startswith(shown)
        assert benchmark.ask(items[0], [0.0, 1.0]).text.startswith(shown.replace("Who is there?\n", ""))
        assert benchmark.ask(items[0], [2.7]).text.startswith("This video's subtitles are listed below:\nBetween")
        assert benchmark.ask(items[0], [5.0]).text.startswith("Select the best"), "a cue ends before its end"
        assert benchmark.ask(items[2], TIMES).text.startswith("Select the best"), "this video has none"
        assert "2 of 3 videos have no subtitles; their questions are asked without" in benchmark.notes

    def test_subtitles_that_are_not_there_at_all_are_an_error(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["videomme"](tmp_path, partial=True, subtitles=True)
        (tmp_path / "subtitle" / "aaa.srt").unlink()
        with pytest.raises(DataError, match=r"subtitle\.zip"):
            benchmark.items()

    def test_scores(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["videomme"](tmp_path, partial=True)
        # right; "Best answer: C" is read as B (their script), wrong; right; unreadable; "All" is an A; not asked
        texts = ["The best answer is B.", "Best answer: C", "B", "", "All of them, but B", None]
        assert figures(benchmark, benchmark.items(), texts) == pytest.approx(
            {
                "accuracy": 2 / 6,
                "accuracy_answered": 2 / 5,
                "accuracy_official": 2 / 4,
                "accuracy/duration/short": 1 / 2,
                "accuracy/duration/medium": 1 / 2,
                "accuracy/duration/long": 0,
                "accuracy/domain/Knowledge": 2 / 4,
                "accuracy/domain/Sports": 0,
                "accuracy/sub_category/Doors": 2 / 6,
                "accuracy/task_type/Counting": 2 / 3,
                "accuracy/task_type/OCR": 0,
            }
        )

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"answer": "E"}, r"001-1: the answer is 'E'"),
            ({"options": ["A door", "B. x", "C. x", "D. x"]}, r"001-1: options should be four texts"),
            ({"options": ["A. x", "B. x", "C. x"]}, r"001-1: options should be four texts"),
            ({"duration": "tiny"}, r"001-1: the duration is 'tiny'"),
            ({"question": None}, r"parquet:1: no question"),
            ({"videoID": None}, r"parquet:1: no videoID"),
        ],
        ids=str,
    )
    def test_a_row_that_is_not_as_published_is_named(
        self, change: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        first, *others = miniatures.videomme_rows()
        root = miniatures.write_videomme(tmp_path, [first | change, *others])
        with pytest.raises(DataError, match=message):
            videomme.VideoMME(str(root), partial=True).items()


class TestLongVideoBench:
    """LongVideoBench."""

    def test_reading_and_asking(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["longvideobench"](tmp_path, partial=True)
        items = benchmark.items()
        assert [(item.key, len(item.options), item.gold) for item in items] == [
            ("a_0", 3, (2,)),
            ("a_1", 4, (0,)),
            ("b_2", 5, (4,)),
            ("c_3", 4, (1,)),
        ]
        prompt = benchmark.ask(items[0], TIMES)
        assert prompt.text == (
            "Question: What is said in case 0?\nA. yes\nB. no\nC. perhaps\n"
            "Answer with the option's letter from the given choices directly."
        )
        assert prompt.continuations == ("A", "B", "C")

    def test_subtitles(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["longvideobench"](tmp_path, partial=True, subtitles=True)
        items = benchmark.items()

        def shown(item: Item, times: list[float]) -> list[str]:
            return benchmark.ask(item, times).text.partition("Question:")[0].splitlines()

        # Times count from the clip's begin at 100 s.  The cue whose end is null ends at 12 - 100 s, before its begin.
        assert shown(items[0], TIMES)[:2] == ["First.", "Second."]
        assert shown(items[0], [2.4, 3.3]) == ["First.", "Second."]
        assert shown(items[0], [2.5, 3.2]) == [], "a frame at the edge is not inside"
        assert shown(items[0], [7.8]) == ["Widened to a second, and still between frames?"]
        assert shown(items[0], [7.9]) == []
        assert shown(items[2], [3.0]) == ["By the clock."]
        assert any("not between the frames" in note for note in benchmark.notes)
        assert "1 of 4 questions have no subtitles" in benchmark.notes

    def test_scores(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["longvideobench"](tmp_path, partial=True)
        # right; nothing to read: with four options a guess is worth 1/4; E is right; D is wrong
        found = figures(benchmark, benchmark.items(), ["C. perhaps", "no idea", "The answer is E", "D"])
        assert found == pytest.approx(
            {
                "accuracy": 2 / 4,
                "accuracy_answered": 2 / 4,
                "accuracy_guessing": 2.25 / 4,
                "accuracy/duration_group/15": 1 / 2,
                "accuracy/duration_group/600": 1,
                "accuracy/duration_group/3600": 0,
                "accuracy/question_category/S2E": 1,
                "accuracy/question_category/T3E": 0,
                "accuracy/question_category/TAA": 0,
            }
        )
        letter_beyond = benchmark.judge(benchmark.items()[0], "E")
        assert not letter_beyond.right and letter_beyond.readable
        assert figures(benchmark, benchmark.items(), [None] * 4)["accuracy_guessing"] == 0, "not asked is no guess"

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"correct_choice": 3}, "correct_choice is 3 of 3 candidates"), ({"correct_choice": "@"}, "correct_choice is"),
         ({"correct_choice": None}, "no correct_choice.*test set has no answers"), ({"candidates": []}, "candidates")],
        ids=str,
    )  # fmt: skip
    def test_a_row_that_is_not_as_published_is_named(
        self, change: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        first, *others = miniatures.longvideobench_rows()
        root = miniatures.write_longvideobench(tmp_path, [first | change, *others])
        with pytest.raises(DataError, match=message):
            longvideobench.LongVideoBench(str(root), partial=True).items()


class TestMLVU:
    """MLVU."""

    def test_reading_the_dev_set(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["mlvu"](tmp_path, partial=True)
        items = benchmark.items()
        assert [(item.key, item.gold) for item in items] == [
            ("1_plotQA/0", (1,)),
            ("1_plotQA/1", (3,)),
            ("2_needle/0", (0,)),
            ("2_needle/1", ()),
            ("2_needle/2", (1, 2)),
            ("7_topic_reasoning/0", (3,)),
        ]
        video = items[2].video
        assert video is not None and video.path == tmp_path / "video" / "2_needle" / "needle_1.mp4"
        assert "7_topic_reasoning: left out 1 blank row(s): 1" in benchmark.notes
        assert "the answer of 2_needle/1 is none of its candidates: always wrong" in benchmark.notes
        assert "3_ego: not there" in benchmark.notes

    def test_a_missing_task_of_the_dev_set_is_an_error(self, tmp_path: Path) -> None:
        files = {stem: [rows[0]] for stem, rows in miniatures.mlvu_dev_files().items()}
        with pytest.raises(DataError, match="1_plotQA: 1 of 539 questions are there"):
            mlvu.MLVU(str(miniatures.write_mlvu_dev(tmp_path, files))).items()

    def test_asking(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["mlvu"](tmp_path, partial=True)
        prompt = benchmark.ask(benchmark.items()[0], TIMES)
        assert prompt.text == (
            "Question: Which one is it in 1.mp4?\nOptions:\n(A) cat\n(B) dog\n(C) cow\n(D) hen\n"
            "Only give the best option."
        )
        assert prompt.system.startswith("Carefully watch this video and pay attention to every detail.")
        assert prompt.prefill == "Best Option: ("

    def test_m_avg_is_the_mean_over_tasks(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["mlvu"](tmp_path, partial=True)
        # B) right; "D. hen" is no letter; (A right; nothing is right; either C or B is right; not asked
        found = figures(benchmark, benchmark.items(), ["B) dog", "D. hen", "A", "A)", "C) cow", None])
        assert found == pytest.approx(
            {
                "accuracy": 3 / 6,
                "accuracy_answered": 3 / 5,
                "accuracy/task/plotQA": 1 / 2,
                "accuracy/task/findNeedle": 2 / 3,
                "accuracy/task/topic_reasoning": 0,
                "m_avg": (1 / 2 + 2 / 3 + 0) / 3,
            }
        )
        assert benchmark.headline == "m_avg"

    def test_the_test_set_joins_its_answers_and_leaves_generation_out(self, tmp_path: Path) -> None:
        root = miniatures.write_mlvu_test(tmp_path)
        benchmark = mlvu.MLVU(str(root), split="test", partial=True)
        items = benchmark.items()
        assert [(item.key, item.gold, len(item.options)) for item in items] == [
            ("AR_0", (5,), 6),
            ("C_0", (0,), 6),
            ("SQA_0", (4,), 6),
        ]
        assert figures(benchmark, items, ["F)", "F) six", "E"])["m_avg"] == pytest.approx(2 / 3)
        answers = json.loads((root / mlvu.TRUTH).read_text())
        miniatures.write_json(root / mlvu.TRUTH, answers[:-1])
        with pytest.raises(DataError, match=r"test_mcq_gt\.json.*no answer to AR_0"):
            benchmark.items()

    def test_the_sets_are_never_mixed(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"there is no .*1_plotQA\.json"):
            mlvu.MLVU(str(miniatures.write_mlvu_test(tmp_path))).items()


class TestLVBench:
    """LVBench."""

    def test_reading_and_asking(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["lvbench"](tmp_path, partial=True)
        items = benchmark.items()
        assert [(item.key, item.gold, item.options) for item in items] == [
            (uid, gold, ("1636", "1366", "1363", "1633")) for uid, gold in (("1", (3,)), ("2", (0,)), ("3", (2,)))
        ]
        assert items[0].query == "What year appears in case 1?"
        text = benchmark.ask(items[0], TIMES).text
        assert text.endswith("(D) 1633\nAnswer the question with the option letter")
        assert "00:01" not in text, "where the answer is to be seen is never shown"

    def test_a_question_counts_in_each_of_its_types_and_a_missing_one_is_wrong(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["lvbench"](tmp_path, partial=True)
        found = figures(benchmark, benchmark.items(), ["The answer is D", "A and B", None])
        assert found == pytest.approx(
            {
                "accuracy": 1 / 3,
                "accuracy_answered": 1 / 2,
                "accuracy/genre/cartoon": 1 / 2,
                "accuracy/genre/live": 0,
                "accuracy/type/key information retrieval": 1,
                "accuracy/type/reasoning": 1 / 2,
                "accuracy/type/temporal grounding": 0,
            }
        )

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"question": "What?\n(A) x\n(B) y"}, r"uid 1: four lines.*found A, B"), ({"answer": "E"}, "answer is 'E'"),
         ({"question_type": "reasoning"}, "question_type should be a list"), ({"uid": None}, "should have a uid")],
        ids=str,
    )  # fmt: skip
    def test_a_row_that_is_not_as_published_is_named(
        self, change: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        rows = miniatures.lvbench_rows()
        rows[0]["qa"][0] |= change
        root = miniatures.write_lvbench(tmp_path, rows)
        with pytest.raises(DataError, match=message):
            lvbench.LVBench(str(root), f"{root}/videos", partial=True).items()


class TestEgoSchema:
    """EgoSchema."""

    def test_only_questions_with_public_answers_are_asked(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["egoschema"](tmp_path, partial=True)
        items = benchmark.items()
        assert [(item.key, item.gold) for item in items] == [("uid-0", (3,)), ("uid-2", (0,))]
        assert benchmark.ask(items[0], TIMES).text == (
            "What does C do in 0?\nA. C walks.\nB. C sits.\nC. C reads.\nD. C waits.\nE. C sings.\n"
            "Answer with the option's letter from the given choices directly."
        )
        assert "the public subset of 500 questions, not the full set" in benchmark.notes

    def test_scores(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["egoschema"](tmp_path, partial=True)
        found = figures(benchmark, benchmark.items(), ["D. C waits.", "the wearer, C, walks"])
        assert found == pytest.approx({"accuracy": 1 / 2, "accuracy_answered": 1 / 2, "accuracy_guessing": 1.2 / 2})

    def test_an_answer_without_its_question_is_named(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["egoschema"](tmp_path)
        miniatures.write_json(tmp_path / "subset_answers.json", {"uid-0": 3, "uid-9": 1})
        with pytest.raises(DataError, match="no question uid-9, which has an answer"):
            benchmark.items()
        miniatures.write_json(tmp_path / "subset_answers.json", {"uid-0": 5})
        with pytest.raises(DataError, match="uid-0 is 5"):
            benchmark.items()


class TestActivityNetQA:
    """ActivityNet-QA."""

    def test_reading_and_asking(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["activitynetqa"](tmp_path, partial=True)
        items = benchmark.items()
        assert [item.answer for item in items] == ["yes", "swim", "the red one", "2"], "joined by their ids"
        assert [item.video.path.name for item in items[1:3] if item.video] == ["v_-abc.mp4", "v_d_e.mkv"]
        text = benchmark.ask(items[0], TIMES).text
        assert text == "What is it in 0? Answer the question using a single word or phrase."

    def test_scores(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["activitynetqa"](tmp_path, partial=True)
        # to the letter; case and stop differ; article differs; wrong
        found = figures(benchmark, benchmark.items(), ["yes", "Swim.", "red one", ""])
        assert found == pytest.approx(
            {
                "accuracy": 1 / 4,
                "accuracy_answered": 1 / 4,
                "accuracy_normalised": 3 / 4,
                "accuracy/type/yes_no": 1,
                "accuracy/type/motion": 0,
                "accuracy/type/colour": 0,
                "accuracy/type/number": 0,
                "accuracy/type/free": 1 / 3,
            }
        )

    def test_an_answer_that_is_missing_is_named(self, tmp_path: Path) -> None:
        benchmark = BENCHMARKS["activitynetqa"](tmp_path, partial=True)
        rows = json.loads((tmp_path / "test_a.json").read_text())
        miniatures.write_json(tmp_path / "test_a.json", rows[1:])
        with pytest.raises(DataError, match="no answer to v_d_e_3"):
            benchmark.items()
