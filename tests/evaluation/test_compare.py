"""Runs side by side: intervals and tests against values known from elsewhere, and folders made by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from vilamp.build import portable
from vilamp.cli import main
from vilamp.config import compose
from vilamp.errors import DataError
from vilamp.evaluation.answers import Answer
from vilamp.evaluation.compare import differing_settings, pairs, read_runs
from vilamp.evaluation.statistics import by_videos, mcnemar, wilson
from vilamp.evaluation.table import markdown, table
from vilamp.evaluation.writing import merge, write_json
from vilamp.training.answers import write_right


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-4)


def test_mcnemars_exact_test() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 5) == mcnemar(5, 0) == 2 / 32
    assert mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert 0 < mcnemar(0, 900) < 1e-200


def test_the_interval_over_videos_is_wider_where_questions_about_one_go_together() -> None:
    videos = [number // 10 for number in range(200)]
    together = [video % 2 == 0 for video in videos]
    alone = [number % 2 == 0 for number in range(200)]
    low, high = by_videos(together, videos)
    independent = wilson(100, 200)
    assert low < independent[0] and high > independent[1]
    assert by_videos(alone, videos) == (0.5, 0.5), "every video is half right"
    assert by_videos(together, videos) == (low, high), "the same numbers give the same interval"


def _evaluation(folder: Path, rights: str, benchmark: str = "MLVU", split: str = "dev", **config: Any) -> Path:
    """An evaluation of questions about two videos; of ``rights`` one letter each: y, n, or - for not asked."""
    folder.mkdir(parents=True)
    answers = [
        Answer(str(number), f"{number % 2}.mp4", reason="decode")
        if right == "-"
        else Answer(str(number), f"{number % 2}.mp4", text="", right={"generation": right == "y"})
        for number, right in enumerate(rights)
    ]
    merge(folder, answers)
    accuracy = rights.count("y") / len(rights)
    result = {
        "benchmark": benchmark,
        "headline": "m_avg",
        "scores": {"generation": {"accuracy": accuracy, "m_avg": 0.5}},
        "sampling": {"frames": {"mean": 12.0}, "visual_tokens": 80.0},
        "memory": {"peak_rss_gib": 1.5},
        "seconds": 12.5,
        "config": {"paths": {"output_dir": str(folder)}, "benchmark": {"split": split}, **config},
    }
    write_json(folder / "result.json", result)
    return folder


def _training(folder: Path, selector: str, accuracy: float, questions: int | None = 512, **settings: Any) -> Path:
    """A run from before there were answers."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").touch()
    metrics = {"val/accuracy": accuracy, "val/keyframe_recall": 0.5, "visual_tokens": 203.0}
    metrics |= {"memory/peak_rss_gib": 0.9, "throughput/seconds": 60.0, "val/accuracy/shape": 0.25}
    write_json(folder / "metrics.json", metrics | ({} if questions is None else {"val/questions": questions}))
    chosen = {"_target_": f"vilamp.selectors.{selector}.{selector.title()}Selector", **settings}
    generate = {"root": str(folder), "seed": 3, "num_workers": len(folder.name)}
    config = {"num_keyframes": 4, "selector": chosen, "data": {"val": None, "generate": generate}}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config | {"paths": {"output_dir": str(folder)}}))
    return folder


def _answered(folder: Path, rights: str, **changed: Any) -> Path:
    """Give a run the answers to questions about two videos, and other settings."""
    write_right(folder, {f"{number % 2}/{number}": right == "y" for number, right in enumerate(rights)})
    config = OmegaConf.load(folder / "config.yaml")
    for key, value in changed.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    OmegaConf.save(config, folder / "config.yaml")
    return folder


def test_evaluations_are_tested_over_the_questions_that_both_have(tmp_path: Path) -> None:
    first = _evaluation(tmp_path / "first", "yyyyyynn-n", num_keyframes=4)
    second = _evaluation(tmp_path / "second", "nnnnnyyn", num_keyframes=8)
    runs = read_runs([first, second])
    (pair,) = pairs(runs)
    assert (pair.common, pair.only_first, pair.only_second) == (8, 5, 1)
    assert pair.p == pytest.approx(2 * (1 + 6) / 64)
    assert differing_settings(runs) == {"num_keyframes": [4, 8]}
    figures = runs[0].figures
    assert (figures["m_avg"], figures["accuracy"], figures["questions"], figures["not_asked"]) == (0.5, 0.6, 10, 1)
    assert (figures["low"], figures["high"]) == wilson(6, 10)
    assert (figures["memory_gib"], figures["seconds"], figures["frames"]) == (1.5, 12.5, 12.0)


def test_only_what_is_the_same_benchmark_and_split_is_tested(tmp_path: Path) -> None:
    folders = [
        _evaluation(tmp_path / "dev", "yyn"),
        _evaluation(tmp_path / "test", "nny", split="test"),
        _evaluation(tmp_path / "other", "nny", benchmark="LVBench"),
        _training(tmp_path / "run", "uniform", 0.5),
    ]
    assert pairs(read_runs(folders)) == []


def test_a_sweep_stands_for_its_runs_and_shows_what_differs(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    _training(sweep / "0", "differential", 0.75, tau=0.85)
    _training(sweep / "1", "differential", 0.5, tau=0.5)
    _training(sweep / "10", "uniform", 0.25)
    runs = read_runs([sweep])
    assert [Path(run.name).name for run in runs] == ["0", "1", "10"]
    assert differing_settings(runs) == {"selector": ["differential", "differential", "uniform"]}
    assert differing_settings(runs[:2]) == {"selector.tau": [0.85, 0.5]}
    figures = runs[0].figures
    assert figures["accuracy"] == 0.75 and (figures["low"], figures["high"]) == wilson(384, 512)
    assert (figures["keyframe_recall"], figures["visual_tokens"], figures["memory_gib"]) == (0.5, 203.0, 0.9)
    assert figures["seconds"] == 60.0


def test_validations_of_training_runs_are_tested_where_they_ask_the_same(tmp_path: Path) -> None:
    names = ("base", "better", "elsewhere", "other_set", "own_shards")
    base, better, elsewhere, other, own = (_training(tmp_path / name, "uniform", 0.5) for name in names)
    folders = [
        _answered(base, "yynnnnnn"),
        _answered(better, "nyyyyyyy"),
        _answered(elsewhere, "yyyynnnn", data__generate__root="/there", data__generate__num_workers=9),
        _answered(other, "yyyyyyyy", data__generate__seed=4),
        _answered(own, "yyyyyyyy", data__val="val.tar"),
        _training(tmp_path / "old", "uniform", 0.5),
    ]
    runs = read_runs(folders)
    found = {Path(pair.second).name: (pair.common, pair.only_first, pair.only_second) for pair in pairs(runs)}
    assert found == {"better": (8, 1, 6), "elsewhere": (8, 0, 2)}
    figures = runs[0].figures
    assert (figures["low_by_videos"], figures["high_by_videos"]) == (0.25, 0.25), "each video is right in one of four"


def test_a_run_is_tested_against_the_one_that_differs_from_it_in_one_setting(tmp_path: Path) -> None:
    grid = {("uniform", 1): "nnnn", ("differential", 1): "yynn", ("uniform", 2): "ynnn", ("differential", 2): "yyyy"}
    folders = [
        _answered(_training(tmp_path / f"{part}{keyframes}", part, 0.5), rights, num_keyframes=keyframes)
        for (part, keyframes), rights in grid.items()
    ]
    alone = _answered(_training(tmp_path / "alone", "uniform", 0.5), "yyyy", num_keyframes=8)
    runs = read_runs([*folders, alone])
    found = pairs(runs, "selector=differential")
    assert [(Path(pair.first).name, Path(pair.second).name) for pair in found] == [
        ("differential1", "uniform1"),
        ("differential2", "uniform2"),
    ]
    assert [(pair.only_first, pair.only_second) for pair in found] == [(2, 0), (3, 0)]
    assert len(pairs(runs, "num_keyframes=1")) == 3
    for wrong in ("selector=random", "selector", "seed=0"):
        with pytest.raises(DataError, match="do not differ in this, but in num_keyframes=1,2,8; selector=uniform"):
            pairs(runs, wrong)


def test_where_package_and_data_lie_is_no_difference_but_what_the_user_typed_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(checkout: str, name: str, *typed: str) -> Path:
        """As a run of this checkout leaves its configuration."""
        monkeypatch.setattr("vilamp.config.asset", lambda relative: tmp_path / checkout / "assets" / relative)
        folder = _training(tmp_path / checkout / name, "uniform", 0.5)
        places = [f"paths.data_dir={tmp_path / checkout / 'data'}", f"paths.output_dir={folder}"]
        OmegaConf.save(OmegaConf.create(portable(compose("train", [*places, *typed]))), folder / "config.yaml")
        return _answered(folder, "yyyn" if typed else "ynnn")

    where = f"data.frames_dir={tmp_path / 'frames'}"
    runs = read_runs([run("here", "four"), run("there", "three", "num_keyframes=3", where)])
    assert differing_settings(runs) == {"num_keyframes": [4, 3]}
    (pair,) = pairs(runs, "num_keyframes=4")
    assert (Path(pair.first).name, Path(pair.second).name, pair.only_second) == ("four", "three", 2)
    weights = f"model.projector.path={tmp_path / 'there' / 'assets' / 'other.safetensors'}"
    shards = ["data=shards", "data.val=val.tar"]
    runs = read_runs([run("here", "a", *shards, "data.train=a.tar"), run("there", "b", *shards, "data.train=b.tar")])
    assert differing_settings(runs) == {"data.train": ["a.tar", "b.tar"]}
    runs = read_runs([run("here", "its_own"), run("there", "projector", weights)])
    assert list(differing_settings(runs)) == ["model.projector.path"]


def test_where_the_same_weights_lie_is_no_difference_and_where_others_lie_is(tmp_path: Path) -> None:
    """Four evaluations; the weights of the first three are the same, and the third selects other keyframes."""

    def run(name: str, rights: str, weights: str, **settings: Any) -> Path:
        parts = {part: {"path": f"/{name}/{part}", "chunk": 8} for part in ("scorer", "language_model")}
        folder = _evaluation(tmp_path / name, rights, model=parts, **{"num_keyframes": 4} | settings)
        stored = json.loads((folder / "result.json").read_text())
        write_json(folder / "result.json", stored | {"hashes": {"weights": weights}})
        return folder

    here, there = run("here", "yynn", "abc"), run("there", "yyny", "abc")
    fewer, other = run("fewer", "ynnn", "abc", num_keyframes=2), run("other", "yyyy", "xyz")
    assert differing_settings(read_runs([here, there])) == {}
    assert differing_settings(read_runs([here, there, fewer])) == {"num_keyframes": [4, 4, 2]}
    (pair,) = pairs(read_runs([here, fewer]), "num_keyframes=4")
    assert (pair.only_first, pair.only_second) == (1, 0)
    assert differing_settings(read_runs([here, there, other])) == {
        f"model.{part}.path": [f"/here/{part}", f"/here/{part}", f"/other/{part}"]
        for part in ("scorer", "language_model")
    }


def test_a_table_names_runs_by_their_settings_where_these_tell_them_apart(tmp_path: Path) -> None:
    folders = [_answered(_training(tmp_path / part, part, 0.5), "yn") for part in ("differential", "uniform")]
    runs = read_runs(folders)
    headings, first, second = table(runs, pairs(runs), kinds=True, named=False)
    assert (headings[0], headings[-1]) == ("selector", "p")
    assert (first[0], first[-1], second[0], second[-1]) == ("differential", "", "uniform", "1.000")
    assert first[headings.index("accuracy/shape")] == "0.250"
    assert (first[headings.index("peak memory, GiB")], first[headings.index("visual tokens")]) == ("0.9", "203")
    assert "accuracy/shape" not in table(runs, [])[0]
    assert markdown([["a|b", "c"], ["1", "2"]]) == "| a\\|b | c |\n|---|---|\n| 1 | 2 |"
    again = read_runs([folders[0], _answered(_training(tmp_path / "again", "differential", 0.5), "yn")])
    assert [row[0] for row in table(again, [], named=False)] == ["run", "differential", "again"]


def test_a_run_from_before_questions_were_counted_has_no_interval(tmp_path: Path) -> None:
    (run,) = read_runs([_training(tmp_path / "old", "uniform", 0.5, questions=None)])
    assert "low" not in run.figures and run.figures["accuracy"] == 0.5


def test_folders_without_a_run_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no run ended there"):
        read_runs([tmp_path])
    _training(tmp_path / "sweep" / "0", "uniform", 0.5)
    (_training(tmp_path / "sweep" / "1", "uniform", 0.5) / "metrics.json").unlink()
    with pytest.raises(DataError, match=r"neither result\.json nor metrics\.json in 1"):
        read_runs([tmp_path / "sweep"])
    write_json(tmp_path / "sweep" / "0" / "metrics.json", {"val/accuracy": "high", "val/questions": 3})
    with pytest.raises(DataError, match="cannot be read"):
        read_runs([tmp_path / "sweep" / "0"])
    answered = _training(tmp_path / "answered", "uniform", 0.5)
    for line in ('{"key": "v/0"}', '{"key": "v/0", "ri'):
        (answered / "val_answers.jsonl").write_text(line)
        with pytest.raises(DataError, match="answered cannot be read"):
            read_runs([answered])


def test_the_command_prints_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(_evaluation(tmp_path / name, rights)) for name, rights in (("a", "yyynnn"), ("b", "nnnnny"))]
    assert main(["compare", *folders]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "of 6 questions of both, 1 are right in the former alone, 3 in the latter alone, p = 0.625" in told
    assert "0.188 - 0.812" in told, "Wilson's interval of three of six"
    assert main(["compare", "--json", *folders]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["accuracy"] for row in found["runs"]] == pytest.approx([0.5, 1 / 6])
    assert found["pairs"][0]["p"] == pytest.approx(0.625) and math.isfinite(found["runs"][0]["low_by_videos"])
    assert main(["compare", "--markdown", *folders]) == 0
    heading, _, first, second = capsys.readouterr().out.splitlines()
    assert heading.startswith("| run | m avg | 95 % (questions) |") and heading.endswith("| p |")
    assert first.startswith("| a (MLVU, generation) |") and second.endswith("| 0.625 |")
    assert main(["compare", str(tmp_path / "nowhere")]) == 1
    assert "is no folder" in capsys.readouterr().err
