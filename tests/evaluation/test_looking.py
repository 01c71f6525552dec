"""Some questions of an evaluation closely: what its report shows of them is what the model was asked, saw and said."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluating
import numpy as np
import pytest
import test_videoniah as needles
from torch import Tensor

from vilamp.data.decode import VideoReader
from vilamp.evaluation import looking
from vilamp.evaluation.run import Evaluation
from vilamp.models.scorer import ClipScorer
from vilamp.models.vision_tower import SiglipTower
from vilamp.report.samples import FILE, Samples, read_samples
from vilamp.samples import SkipSample, Video
from vilamp.testing.barcodes import read_barcodes
from vilamp.training import showing
from vilamp.videoniah.spec import read_spec

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]
WITH_REPORT = "report=true"
spec = needles.spec


@pytest.fixture(scope="module")
def shown(checkpoint: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Samples]:
    """An evaluation with its report and with W&B."""
    folder = tmp_path_factory.mktemp("shown")
    done = evaluating.run(checkpoint, questions, folder, WITH_REPORT, "logger=wandb")
    return done, read_samples(folder)


def test_what_is_shown_is_what_was_answered(shown: tuple[Evaluation, Samples]) -> None:
    done, samples = shown
    answers = {answer.key: answer for answer in done.answers}
    assert not samples.unseen and samples.samples
    first: dict[tuple[str, bool], str] = {}
    for answer in sorted(done.answers, key=lambda one: one.key):
        if answer.asked:
            first.setdefault((str(answer.video), answer.right["generation"]), answer.key)
    assert {one.key for one in samples.samples} == set(first.values()), "of each video one right and one wrong answer"
    for one in samples.samples:
        answer = answers[one.key]
        assert (one.answer, one.exact) == (answer.text, answer.right["generation"])
        assert [one.times[frame] for frame in one.keyframes] == answer.keyframes
        assert one.question.splitlines()[:2] == [f"What shape is number {one.key[2:]}?", "A. a circle"]
        assert (
            one.right_answer == ["A. a circle", "B. a square"][int(one.key[2:]) % 2]
            and one.kind == f"kind {one.key[0]}"
        )
        merged = [still for still in one.stills if still.merged]
        assert merged and all(np.sum(still.weights) == pytest.approx(1, abs=1e-3) for still in merged)
    page = (done.folder / "report.html").read_text()
    assert "from the start of the benchmark" in page and page.count("<article") == len(samples.samples)
    assert (done.folder / "timeline.png").is_file() and not (done.folder / "metrics.csv").exists()


def test_wandb_gets_the_scores_the_charts_and_the_questions(shown: tuple[Evaluation, Samples]) -> None:
    done, samples = shown
    (offline,) = (done.folder / "wandb").glob("offline-run-*")
    (table,) = offline.glob("files/media/table/report/samples*.table.json")
    assert [row[:4] for row in json.loads(table.read_text())["data"]] == [
        [one.question, one.answer, one.right_answer, one.exact] for one in samples.samples
    ]
    assert list(offline.glob("files/media/images/report/scores*.png"))
    assert b"likelihood/accuracy_answered" in next(offline.glob("*.wandb")).read_bytes()


def test_an_evaluation_that_went_on_shows_the_same(
    checkpoint: Path, questions: Path, shown: tuple[Evaluation, Samples], tmp_path: Path
) -> None:
    """Also questions that were answered before the kill."""
    done, _ = shown
    lines = (done.folder / "answers.jsonl").read_bytes().splitlines(keepends=True)
    shutil.copy(done.folder / "identity.json", tmp_path)
    (tmp_path / "answers.jsonl").write_bytes(b"".join(lines[:5]))
    evaluating.run(checkpoint, questions, tmp_path, WITH_REPORT)
    assert (tmp_path / FILE).read_bytes() == (done.folder / FILE).read_bytes()


def test_a_video_that_is_gone_by_then_is_counted_on_the_page(
    checkpoint: Path,
    questions: Path,
    shown: tuple[Evaluation, Samples],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, samples = shown
    again = tmp_path / "again"
    shutil.copytree(done.folder, again)
    monkeypatch.setattr(looking, "Videos", lambda *_: [SkipSample("decode", "it is gone")])
    evaluating.run(checkpoint, questions, again, WITH_REPORT)
    assert read_samples(again) == Samples(unseen=len(samples.samples))
    assert f"Missing here: {len(samples.samples)}, whose videos" in (again / "report.html").read_text()
    assert (again / "answers.jsonl").read_bytes() == (done.folder / "answers.jsonl").read_bytes()


def test_without_a_generated_answer_the_likeliest_option_is_shown(
    checkpoint: Path, questions: Path, tmp_path: Path
) -> None:
    done = evaluating.run(checkpoint, questions, tmp_path, WITH_REPORT, "scoring=likelihood")
    answers = {answer.key: answer for answer in done.answers}
    for one in read_samples(tmp_path).samples:
        scores = answers[one.key].log_likelihoods or []
        best = scores.index(max(scores))
        assert one.answer == f"{'ABC'[best]}. {evaluating.OPTIONS[best]}"
        assert one.exact == answers[one.key].right["likelihood"] == (one.answer == one.right_answer)


def test_of_a_haystack_the_frames_of_haystack_and_needle_are_shown_in_their_places(
    checkpoint: Path, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    real = showing.jpeg

    def reading(frame: np.ndarray) -> str:
        numbers.extend(read_barcodes(frame[None]))
        return real(frame)

    monkeypatch.setattr(showing, "jpeg", reading)
    monkeypatch.setattr(needles.splicing, "WINDOW", 7)
    settings: list[Any] = [WITH_REPORT, "benchmark.depths=[0.5]", "benchmark.lengths=[20]"]
    done = needles.run(checkpoint, spec, tmp_path, *settings)
    samples, cases = read_samples(tmp_path).samples, {case.id: case for case in read_spec(spec).cases}
    assert len(samples) == 3, "one of each needle"
    expected = []
    for one in samples:
        case, needle = cases[one.key], int(one.key[1])
        clip = list(range(500 + 20 * needle, 503 + 21 * needle))
        frames = [*range(case.before), *clip, *range(case.before, case.length - len(clip))]
        expected += [frames[still.frame] for still in one.stills]
        assert len(one.times) == 20 and any(frames[still.frame] >= 500 for still in one.stills)
        assert [one.times[frame] for frame in one.keyframes] == {a.key: a for a in done.answers}[one.key].keyframes
        assert all(still.weights for still in one.stills if still.merged)
    assert numbers == expected


def test_questions_about_one_haystack_share_a_pass_through_it(
    checkpoint: Path, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    likelihood = "scoring=likelihood"  # by which some are right and some wrong, at both lengths
    needles.run(checkpoint, spec, tmp_path, likelihood)  # without a report: what follows is no more than looking
    read, embed, encode = VideoReader.read, ClipScorer.embed_frames, SiglipTower.forward
    frames = Counter[str]()

    def reading(self: VideoReader, source: Any, key: str, *rest: Any, **more: Any) -> Video:
        video = read(self, source, key, *rest, **more)
        frames[f"read {key}"] += len(video)
        return video

    def counting(name: str, real: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
        return lambda self, chunk: (frames.update({name: len(chunk)}), real(self, chunk))[1]

    monkeypatch.setattr(VideoReader, "read", reading)
    monkeypatch.setattr(ClipScorer, "embed_frames", counting("embedded", embed))
    monkeypatch.setattr(SiglipTower, "forward", counting("encoded", encode))
    needles.run(checkpoint, spec, tmp_path, likelihood, WITH_REPORT)
    together = read_samples(tmp_path)
    keys = [one.key for one in together.samples]
    shown = [case for case in read_spec(spec).cases if case.id in keys]
    assert {case.length for case in shown} == {20, 50}
    assert not [key for key in keys if key.startswith("n1/")], "no options: whether it is right is not known"
    clips = [3 + int(case.id[1]) for case in shown]
    from_haystack = max(case.length - clip for case, clip in zip(shown, clips, strict=True))
    assert frames["encoded"] == from_haystack + sum(clips), "each frame of the haystack once"
    assert frames["embedded"] == from_haystack + sum(set(clips))
    assert frames["read 0.mp4"] == 2 * from_haystack + 3, "to embed and to encode; a needle has the same name"
    chosen = looking._chosen
    monkeypatch.setattr(
        looking, "_chosen", lambda *of: [replace(one, items=(item,)) for one in chosen(*of) for item in one.items]
    )
    needles.run(checkpoint, spec, tmp_path, likelihood, WITH_REPORT)
    assert read_samples(tmp_path) == together, "each question is shown as it is when looked at alone"
