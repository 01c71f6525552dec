"""Whole evaluations: what they count, keep and refuse, and that one that was ended goes on to the same result."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluating
import miniatures
import pytest
import torch
import webdataset as wds

import vilamp
from vilamp.benchmark import Item
from vilamp.cli import main
from vilamp.config import compose
from vilamp.errors import ConfigError, DataError, LostWorkerError, OutputError
from vilamp.evaluation.answers import Answer
from vilamp.evaluation.asking import Asker
from vilamp.evaluation.compare import differing_settings, read_runs
from vilamp.evaluation.run import Evaluation, evaluate
from vilamp.evaluation.videos import Videos
from vilamp.models.scorer import ClipScorer
from vilamp.models.vision_tower import SiglipTower
from vilamp.report.make import make_report
from vilamp.samples import Video
from vilamp.training.export import export
from vilamp.training.run import evaluate as validate

ROOT = Path(vilamp.__file__).parents[1]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]


def test_every_question_has_an_answer_or_a_reason(whole: Evaluation) -> None:
    assert [answer.key for answer in whole.answers] == [
        f"{video}/{n}" for n in range(3) for video in ("a", "b", "broken", "missing")
    ]
    reasons = {answer.key.partition("/")[0]: answer.reason for answer in whole.answers}
    assert reasons == {"a": "", "b": "", "broken": "decode", "missing": "missing_video"}
    for answer in whole.answers:
        if answer.asked:
            assert answer.text is not None and answer.log_likelihoods is not None
            assert len(answer.log_likelihoods) == 2 + int(answer.key[-1]) % 2 and max(answer.log_likelihoods) < 0
            assert answer.frames == miniatures.SECONDS and len(answer.keyframes) <= 3
            best = answer.log_likelihoods.index(max(answer.log_likelihoods))
            assert answer.right["likelihood"] == (best == int(answer.key[-1]) % 2)
        else:
            assert answer.detail and not answer.right
    stored = [json.loads(line) for line in (whole.folder / "answers.jsonl").read_text().splitlines()]
    assert [Answer(**row) for row in stored] == whole.answers


def test_frames_that_come_through_files_get_the_same_answers(
    questions: Path, whole: Evaluation, tmp_path: Path
) -> None:
    """From a worker, and each video for all of its questions."""
    files = [f"data.frames_dir={tmp_path / 'frames'}", "data.frames_in_memory=0", "data.num_workers=1"]
    checkpoint = evaluating.make_checkpoint(tmp_path / "best.ckpt", *evaluating.HERE, *files)
    answers = evaluating.run(checkpoint, questions, tmp_path / "run").answers
    assert [replace(answer, seconds=0) for answer in answers] == [replace(one, seconds=0) for one in whole.answers]
    assert (tmp_path / "frames").is_dir() and not list((tmp_path / "frames").iterdir())


def test_a_worker_that_is_killed_is_one_message(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, getitem = os.getpid(), Videos.__getitem__

    def killed(self: Videos, number: int) -> Any:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return getitem(self, number)

    monkeypatch.setattr(Videos, "__getitem__", killed)
    checkpoint = evaluating.make_checkpoint(tmp_path / "best.ckpt", *evaluating.HERE, "data.num_workers=1")
    told = r"was killed \(SIGKILL\).*lower data\.num_workers=1, .*; 0 answers are in .*; with hydra\.run\.dir="
    with pytest.raises(LostWorkerError, match=told):
        evaluating.run(checkpoint, questions, tmp_path / "run")


def test_the_result_states_what_produced_it_and_counts_what_was_not_asked(whole: Evaluation) -> None:
    result = json.loads((whole.folder / "result.json").read_text())
    assert result == whole.result
    assert result["counts"] == {
        "questions": 12,
        "asked": 6,
        "not_asked": {"decode": 3, "missing_video": 3},
        "videos": 4,
        "unreadable_answers": result["counts"]["unreadable_answers"],
        "queries_cut": 0,
        "gaps": 0,
    }
    right = sum(answer.right.get("likelihood", False) for answer in whole.answers)
    scores = result["scores"]["likelihood"]
    assert scores["accuracy"] == pytest.approx(right / 12, abs=1e-6), "what was not asked is wrong"
    assert scores["accuracy_answered"] == pytest.approx(right / 6, abs=1e-6)
    assert scores["accuracy/kind/missing"] == 0
    assert result["sampling"]["frames"] == {"least": 12, "most": 12, "mean": 12}
    assert (result["sampling"]["fps"], result["sampling"]["num_keyframes"]) == (1.0, 3)
    assert {"weights", "data", "videos"} == set(result["hashes"])
    assert result["seed"] == 0 and result["seconds"] > 0 and result["memory"]["peak_rss_gib"] > 0
    assert result["config"]["benchmark"]["_target_"].endswith("OwnMultipleChoice")
    assert result["config"]["model"]["scorer"]["path"] == "${asset:tiny/scorer}", "wherever the package lies"
    assert {"vilamp", "torch", "transformers"} <= set(result["versions"])


def test_a_video_is_encoded_once_for_all_questions_about_it(
    checkpoint: Path, questions: Path, whole: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    forward = SiglipTower.forward
    monkeypatch.setattr(
        SiglipTower, "forward", lambda self, frames: (encoded.append(len(frames)), forward(self, frames))[1]
    )
    alone = evaluating.run(checkpoint, questions, tmp_path / "alone", "questions_at_once=1")
    assert sum(encoded) == 2 * miniatures.SECONDS
    assert [answer.text for answer in alone.answers] == [answer.text for answer in whole.answers]
    for one, other in zip(alone.answers, whole.answers, strict=True):
        assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-4) if one.asked else True


@pytest.mark.parametrize("lines", [0, 1, 10])
def test_an_evaluation_goes_on_where_it_was_ended(
    checkpoint: Path, questions: Path, whole: Evaluation, tmp_path: Path, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also behind a line that is not whole, with bytes that differ in nothing."""
    written = (whole.folder / "answers.jsonl").read_bytes().splitlines(keepends=True)
    shutil.copy(whole.folder / "identity.json", tmp_path)
    (tmp_path / "answers.jsonl").write_bytes(b"".join(written[:lines]) + written[lines][: 10 * lines])
    asked: list[str] = []
    call = Asker.__call__

    def noting(self: Asker, items: Sequence[Item], video: Video | None) -> list[Answer]:
        asked.extend(item.key for item in items)
        return call(self, items, video)

    monkeypatch.setattr(Asker, "__call__", noting)
    evaluating.run(checkpoint, questions, tmp_path)
    assert evaluating.same(tmp_path) == evaluating.same(whole.folder)
    done = {json.loads(line)["key"] for line in written[:lines]}
    for video in ("a", "b"):
        of_video = {f"{video}/{number}" for number in range(3)}
        assert of_video <= set(asked) or of_video <= done, "all questions of a video or none are asked"


def test_scores_that_find_no_room_are_shown_and_no_answer_is_lost(
    checkpoint: Path, questions: Path, whole: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*result\.json"):
        evaluating.run(checkpoint, questions, tmp_path)
    assert "6 of 12 questions were asked" in capsys.readouterr().out
    (tmp_path / "result.json").rmdir()
    evaluating.run(checkpoint, questions, tmp_path)
    assert evaluating.same(tmp_path) == evaluating.same(whole.folder)


def test_an_exported_model_that_was_moved_has_no_other_settings_and_is_gone_on_with(
    checkpoint: Path, questions: Path, tmp_path: Path
) -> None:
    export(str(checkpoint), tmp_path / "here")
    runs = [evaluating.run(tmp_path / "here", questions, tmp_path / "first", "scoring=likelihood")]
    shutil.move(tmp_path / "here", tmp_path / "there")
    runs.append(evaluating.run(tmp_path / "there", questions, tmp_path / "second", "scoring=likelihood"))
    paths = [run.result["config"]["model"]["language_model"]["path"] for run in runs]
    assert paths == [str(tmp_path / place / "language_model") for place in ("here", "there")]
    assert differing_settings(read_runs([run.folder for run in runs])) == {}
    answers = (tmp_path / "first/answers.jsonl").read_bytes()
    (tmp_path / "first/answers.jsonl").write_bytes(b"".join(answers.splitlines(keepends=True)[:4]))
    evaluating.run(tmp_path / "there", questions, tmp_path / "first", "scoring=likelihood")
    assert evaluating.same(tmp_path / "first")["answers"] == evaluating.same(tmp_path / "second")["answers"]


def test_a_finished_evaluation_asks_nothing_more(
    checkpoint: Path, questions: Path, whole: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole.folder, tmp_path / "again")
    monkeypatch.setattr(Asker, "__call__", lambda *_: pytest.fail("a question was asked again"))
    evaluating.run(checkpoint, questions, tmp_path / "again")
    assert evaluating.same(tmp_path / "again") == evaluating.same(whole.folder)


def test_the_answers_of_a_killed_evaluation_make_a_report(whole: Evaluation, tmp_path: Path) -> None:
    """Six of the twelve questions were asked; the last line is only half there."""
    lines = (whole.folder / "answers.jsonl").read_bytes()
    (tmp_path / "answers.jsonl").write_bytes(lines[:-20])
    (tmp_path / "config.yaml").write_bytes((whole.folder / "config.yaml").read_bytes())
    page = make_report(tmp_path).file.read_text()
    right = sum(answer.right["likelihood"] for answer in whole.answers if answer.asked)
    assert f"<dt>accuracy_answered, likelihood</dt><dd>{right / 6:.3f}</dd>" in page
    assert "<dt>questions asked</dt><dd>6</dd>" in page and "has not ended" in page and "OwnMultipleChoice" in page


def test_answers_of_another_evaluation_are_never_gone_on_with(
    checkpoint: Path, questions: Path, whole: Evaluation, tmp_path: Path
) -> None:
    folder = tmp_path / "taken"
    shutil.copytree(whole.folder, folder)
    with pytest.raises(ConfigError, match=r"another evaluation: num_keyframes was 3 and is 2.*hydra\.run\.dir"):
        evaluating.run(checkpoint, questions, folder, "num_keyframes=2")
    with pytest.raises(ConfigError, match=r"data\.fps was 1\.0 and is 2"):
        evaluating.run(checkpoint, questions, folder, "fps=2")
    with pytest.raises(ConfigError, match="scoring was both and is likelihood"):
        evaluating.run(checkpoint, questions, folder, "scoring=likelihood")
    other = evaluating.make_checkpoint(tmp_path / "other.ckpt", *evaluating.HERE, "model.projector.path=random")
    with pytest.raises(ConfigError, match="other weights"):
        evaluating.run(other, questions, folder)
    changed = tmp_path / "changed"
    shutil.copytree(questions, changed)
    rows = json.loads((changed / "own.json").read_text())
    miniatures.write_json(changed / "own.json", [rows[0] | {"answer": "B"}, *rows[1:]])
    with pytest.raises(ConfigError, match="other questions"):
        evaluating.run(checkpoint, changed, folder)
    assert evaluating.same(folder) == evaluating.same(whole.folder), "nothing was touched"
    (folder / "identity.json").unlink()
    with pytest.raises(ConfigError, match=r"holds answers without identity\.json"):
        evaluating.run(checkpoint, questions, folder)


def test_a_video_that_was_missing_is_asked_about_when_it_is_there_and_another_one_is_refused(
    checkpoint: Path, questions: Path, whole: Evaluation, tmp_path: Path
) -> None:
    moved, folder = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(questions, moved)
    shutil.copytree(whole.folder, folder)
    miniatures.put_clips(moved, ["missing.mp4"])
    completed = evaluating.run(checkpoint, moved, folder)
    assert completed.result["counts"]["not_asked"] == {"decode": 3}
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 12
    (moved / "a.mp4").write_bytes(b"another one")
    with pytest.raises(ConfigError, match=r"a\.mp4 has 11 bytes and had \d+ when a/0 was answered"):
        evaluating.run(checkpoint, moved, folder)


def test_without_any_video_nothing_is_scored(checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    shutil.copy(questions / "own.json", tmp_path)
    with pytest.raises(DataError, match="none of the benchmark's 4 videos is there"):
        evaluating.run(checkpoint, tmp_path, tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("scoring=judge", "scoring must be generation, likelihood, both, got 'judge'"),
        ("questions_at_once=0", "questions_at_once must be a whole number of at least 1, got 0"),
        ("trainer.devices=2", r"trainer\.devices=2: .*torchrun"),
        ("trainer.precision=64-true", "trainer.precision must be"),
        ("trainer.accelerator=tpu", "trainer.accelerator=tpu is not there"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    checkpoint: Path, questions: Path, tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluating.run(checkpoint, questions, tmp_path, setting)


def test_open_questions_have_no_likelihood(checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "question": "what?", "answer": "grey"}]
    miniatures.write_json(tmp_path / "open.json", rows)
    own = [f"checkpoint={checkpoint}", "benchmark=open_ended", f"benchmark.annotations={tmp_path}/open.json",
           f"benchmark.videos={questions}", f"paths.output_dir={tmp_path / 'run'}"]  # fmt: skip
    assert set(evaluate(compose("evaluate", own)).result["scores"]) == {"generation"}
    with pytest.raises(ConfigError, match="scoring=likelihood needs questions with options"):
        evaluate(compose("evaluate", [*own, "scoring=likelihood"]))


def test_a_long_question_is_cut_for_the_scorer_and_counted(checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "question": "what is " * 60, "answer": "grey"}]
    miniatures.write_json(tmp_path / "open.json", rows)
    own = [f"checkpoint={checkpoint}", "benchmark=open_ended", f"benchmark.annotations={tmp_path}/open.json",
           f"benchmark.videos={questions}", f"paths.output_dir={tmp_path / 'run'}"]  # fmt: skip
    counts = evaluate(compose("evaluate", own)).result["counts"]
    assert counts["asked"] == counts["queries_cut"] == 1


def test_kept_embeddings_answer_the_same(
    checkpoint: Path, questions: Path, whole: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = f"embedding_cache={tmp_path / 'kept'}"
    evaluating.run(checkpoint, questions, tmp_path / "first", kept)
    monkeypatch.setattr(ClipScorer, "embed_frames", lambda *_: pytest.fail("a frame was embedded again"))
    again = evaluating.run(checkpoint, questions, tmp_path / "again", kept)
    assert [answer.text for answer in again.answers] == [answer.text for answer in whole.answers]


def test_a_question_about_no_video_is_asked_alone(checkpoint: Path, tmp_path: Path) -> None:
    asked = [{"question": "what is red?", "answer": "circle", "kind": "words"}]
    with wds.TarWriter(str(tmp_path / "val.tar")) as writer:
        writer.write({"__key__": "text", "json": json.dumps({"questions": asked}).encode()})
    given = [f"checkpoint={checkpoint}", "benchmark=needle", "data=shards", f"data.val={tmp_path}/val.tar"]
    found = evaluate(compose("evaluate", [*given, f"paths.output_dir={tmp_path / 'run'}"]))
    (answer,) = found.answers
    assert answer.asked and answer.video is None and answer.frames == 0 and answer.text


def test_the_needle_benchmark_is_the_validation(tmp_path: Path) -> None:
    few = ["train_videos=1", "val_videos=4", "min_seconds=10", "max_seconds=20", "events=3", "look_alikes=1"]
    few += ["questions_per_video=4", "num_workers=1", "progress=false"]
    made = evaluating.make_checkpoint(
        tmp_path / "best.ckpt",
        *evaluating.HERE,
        "selector=random",
        "merger=uniform",
        *(f"data.generate.{one}" for one in few),
    )
    given = [f"checkpoint={made}", f"paths.data_dir={tmp_path}"]
    validated = validate(compose("evaluate", [*given, f"paths.output_dir={tmp_path / 'validation'}"])).metrics
    found = evaluate(compose("evaluate", [*given, f"paths.output_dir={tmp_path / 'run'}", "benchmark=needle"])).result
    scores = {name: value for name, value in found["scores"]["generation"].items() if name != "accuracy_answered"}
    assert scores == {
        name.removeprefix("val/").replace("accuracy/", "accuracy/kind/"): value
        for name, value in validated.items()
        if name.startswith("val/accuracy") and "by_depth" not in name
    }
    assert 0 < scores["accuracy"] < 1, "random keyframes show the answer to some questions"
    assert found["sampling"]["keyframe_recall"] == validated["val/keyframe_recall"]
    assert found["sampling"]["visual_tokens"] == validated["visual_tokens"]


def test_the_command_line_answers_in_one_message(
    checkpoint: Path,
    questions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    where = f"hydra.run.dir={tmp_path / 'run'}"
    assert main(["evaluate", "benchmark=videomme", "checkpoint=none.ckpt", where]) == 1
    assert "no value for benchmark.root" in capsys.readouterr().err
    own = evaluating.settings(checkpoint, questions, tmp_path / "run")
    assert main(["evaluate", *own, where]) == 0
    assert "1 of 4 videos are missing" in (told := capsys.readouterr().out)
    assert "6 of 12 questions were asked" in told
    assert main(["evaluate", *own, where, "num_keyframes=1"]) == 1
    assert "holds answers of another evaluation" in capsys.readouterr().err


def _driven(points: Sequence[str], given: Sequence[str]) -> subprocess.CompletedProcess[str]:
    driver = [sys.executable, str(ROOT / "tests" / "evaluation" / "killed.py"), *points]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.run([*driver, *given], env=env, capture_output=True, text=True, timeout=600)


def _killed(rounds: int, seed: int, checkpoint: Path, questions: Path, whole: Evaluation, folder: Path) -> None:
    """Kill an evaluation so many times, each time a bit further on, and let it end."""
    draw = random.Random(seed)
    given = evaluating.settings(checkpoint, questions, folder, f"hydra.run.dir={folder}")
    for _ in range(rounds):
        done = _driven([draw.choice(["line", "line", "merge"]), str(draw.randint(0, 2)), str(draw.random())], given)
        assert done.returncode in (-9, 0), done.stderr
    evaluating.run(checkpoint, questions, folder)
    assert evaluating.same(folder) == evaluating.same(whole.folder)
    assert not list(folder.glob("answers.rank*"))


def test_an_evaluation_that_was_killed_goes_on(
    checkpoint: Path, questions: Path, whole: Evaluation, tmp_path: Path
) -> None:
    _killed(1, 0, checkpoint, questions, whole, tmp_path / "run")


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_an_evaluation_that_was_killed_again_and_again_goes_on(
    checkpoint: Path, questions: Path, whole: Evaluation, tmp_path: Path, seed: int
) -> None:
    _killed(5, seed, checkpoint, questions, whole, tmp_path / "run")


def test_two_processes_share_the_videos_and_leave_one_result(
    checkpoint: Path, questions: Path, whole: Evaluation, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    given = evaluating.settings(checkpoint, questions, folder, f"hydra.run.dir={folder}")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [*torchrun, str(ROOT / "evaluate.py"), *given], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert evaluating.same(folder) == evaluating.same(whole.folder)
    assert json.loads((folder / "result.json").read_text())["processes"] == 2
    assert not list(folder.glob("answers.rank*"))
