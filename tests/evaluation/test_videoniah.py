"""VideoNIAH as a benchmark: the right frames in the right order, haystacks read once for many, and what it leaves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluating
import numbered
import pytest
import torch
from torch import Tensor

from vilamp.config import compose
from vilamp.data.decode import VideoReader
from vilamp.errors import ConfigError, DataError
from vilamp.evaluation import splicing
from vilamp.evaluation.run import Evaluation, evaluate
from vilamp.models.scorer import ClipScorer
from vilamp.models.vision_tower import SiglipTower
from vilamp.models.visual_stream import Course, VisualStream
from vilamp.report.heatmap import grid
from vilamp.samples import Video
from vilamp.testing.barcodes import read_barcodes
from vilamp.videoniah.build import Wanted, build, read_needles
from vilamp.videoniah.spec import read_spec, write_spec

LENGTHS, DEPTHS = [20, 50], [0.0, 0.5, 1.0]
SMALL = ["benchmark.max_new_tokens=4", "report=false"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]


def make_spec(folder: Path, when_short: str = "error", frames: int = 60, **more: Any) -> Path:
    haystacks = numbered.write_videos(folder, haystacks=2 if when_short == "join" else 1, frames=frames)
    needles = read_needles(folder / "needles.jsonl", folder, {})
    wanted = Wanted(**{"lengths": LENGTHS, "depths": DEPTHS, "when_short": when_short} | more)
    write_spec(build(haystacks, needles, folder, wanted), folder / "spec.jsonl")
    return folder / "spec.jsonl"


def run(checkpoint: Path, spec: Path, folder: Path, *more: str) -> Evaluation:
    settings = [f"checkpoint={checkpoint}", "benchmark=videoniah", f"benchmark.spec={spec}"]
    return evaluate(compose("evaluate", [*settings, *SMALL, f"paths.output_dir={folder}", *more]))


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three needles in one haystack, at two lengths and three depths."""
    return make_spec(tmp_path_factory.mktemp("niah"))


@pytest.fixture(scope="session")
def niah(checkpoint: Path, spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Its evaluation."""
    return run(checkpoint, spec, tmp_path_factory.mktemp("whole_niah"), "report=true")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, list[int]]]:
    """The numbers on the frames that each question saw, by the seed of the question."""
    numbers: dict[int, list[int]] = {}
    patches, follow = VisualStream.patches, VisualStream.follow

    def telling(self: VisualStream, frames: Tensor) -> Tensor:
        shown = torch.tensor(read_barcodes(frames.numpy()), dtype=torch.float32)
        return torch.zeros_like(patches(self, frames)) + shown[:, None, None]

    def noting(self: VisualStream, patches: Tensor, course: Course) -> None:
        numbers.setdefault(course.view.seed, []).extend(int(number) for number in patches[:, 0, 0])
        follow(self, patches, course)

    monkeypatch.setattr(VisualStream, "patches", telling)
    monkeypatch.setattr(VisualStream, "follow", noting)
    yield numbers


@pytest.mark.parametrize(("when_short", "frames"), [("error", 60), ("join", 30), ("loop", 22)])
def test_every_question_sees_the_frames_of_its_needle_between_those_of_its_haystack(
    checkpoint: Path, tmp_path: Path, seen: dict[int, list[int]], when_short: str, frames: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(splicing, "WINDOW", 7)
    spec = make_spec(tmp_path, when_short, frames)
    run(checkpoint, spec, tmp_path / "out")
    haystack = [number % frames for number in range(60)]
    expected = []
    for case in read_spec(spec).cases:
        number = int(case.id[1])
        needle = list(range(500 + 20 * number, 503 + 21 * number))
        rest = haystack[: case.length - len(needle)]
        expected.append([*rest[: case.before], *needle, *rest[case.before :]])
    assert sorted(seen.values()) == sorted(expected)
    assert {len(numbers) for numbers in seen.values()} == set(LENGTHS)


def test_a_haystack_is_embedded_once_and_decoded_once_for_sixteen_needles(
    checkpoint: Path, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()
    embedded: list[int] = []
    encoded: list[int] = []
    read, embed, forward = VideoReader.read, ClipScorer.embed_frames, SiglipTower.forward

    def reading(self: VideoReader, source: Any, key: str, *rest: Any, **more: Any) -> Video:
        video = read(self, source, key, *rest, **more)
        reads[key] += len(video.frames)
        return video

    monkeypatch.setattr(VideoReader, "read", reading)
    monkeypatch.setattr(
        ClipScorer, "embed_frames", lambda self, frames: (embedded.append(len(frames)), embed(self, frames))[1]
    )
    monkeypatch.setattr(
        SiglipTower, "forward", lambda self, frames: (encoded.append(len(frames)), forward(self, frames))[1]
    )
    cache = f"embedding_cache={tmp_path / 'embeddings'}"
    run(checkpoint, spec, tmp_path / "first", cache)  # 18 cases: two passes
    longest, needles = 50 - 3, 3 + 4 + 5
    assert sum(embedded) <= longest + 2 * needles
    assert reads["0.mp4"] <= 3 * longest + 2 * 3, "once to embed, and once for each pass"
    assert sum(encoded) <= 2 * longest + 6 * needles
    again = sum(embedded)
    run(checkpoint, spec, tmp_path / "second", cache, "selector=uniform")
    assert sum(embedded) == again, "another evaluation finds the embeddings"


def test_scores_come_by_length_depth_and_cell_with_a_picture(niah: Evaluation) -> None:
    scores = niah.result["scores"]["generation"]
    lengths, depths, values = grid(scores)
    assert (lengths, depths, values.shape) == (LENGTHS, DEPTHS, (3, 2))
    for number, length in enumerate(lengths):
        assert values[:, number].mean() == pytest.approx(scores[f"accuracy/length/{length}"], abs=1e-5)
    right = [answer.right["generation"] for answer in niah.answers]
    assert scores["accuracy"] == pytest.approx(sum(right) / 18, abs=1e-6)
    page = (niah.folder / "report.html").read_text()
    for way in ("generation", "likelihood"):
        assert (niah.folder / f"report/heatmap-{way}.png").read_bytes().startswith(b"\x89PNG")
        assert f'<figure id="heatmap-{way}">' in page
    cells = [f">{value:.2f}</text>" for value in values.flat]
    assert all(page.count(cell) >= cells.count(cell) for cell in cells), "the picture on the page has every cell"
    assert "accuracy/cell/20/0.5" in niah.result["scores"]["likelihood"], "two needles have options"
    assert niah.result["notes"] == ["likelihood: over the 12 of 18 questions that have options"]
    assert niah.result["sampling"]["frames"] == {"least": 20, "most": 50, "mean": 35}
    assert niah.result["counts"]["videos"] == 3
    assert all(answer.recall is not None and answer.video and answer.video_bytes for answer in niah.answers)
    assert niah.result["config"]["data"]["max_frames"] == 50


def test_it_goes_on_where_it_was_ended(checkpoint: Path, spec: Path, niah: Evaluation, tmp_path: Path) -> None:
    lines = (niah.folder / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "identity.json").write_bytes((niah.folder / "identity.json").read_bytes())
    (tmp_path / "answers.jsonl").write_bytes(b"".join(lines[:16]) + lines[16][:9])
    run(checkpoint, spec, tmp_path)
    assert evaluating.same(tmp_path) == evaluating.same(niah.folder)


def test_only_some_lengths_and_depths(checkpoint: Path, spec: Path, niah: Evaluation, tmp_path: Path) -> None:
    part = run(checkpoint, spec, tmp_path / "a", "benchmark.lengths=[20]", "benchmark.depths=[0.5]")
    wanted = [answer for answer in niah.answers if answer.key.endswith("/20/0.5")]
    assert [(answer.key, answer.text) for answer in part.answers] == [(answer.key, answer.text) for answer in wanted]
    with pytest.raises(ConfigError, match=r"benchmark.lengths: .* has no 30, only \[20, 50\]"):
        run(checkpoint, spec, tmp_path / "b", "benchmark.lengths=[30]")


def test_sampling_is_the_specifications(checkpoint: Path, spec: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fps=2, but the benchmark's questions are made for 1\.0; leave it out"):
        run(checkpoint, spec, tmp_path, "fps=2")


def test_a_missing_or_other_file_costs_its_questions_only(checkpoint: Path, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, lengths=[20], depths=[0.5])
    (tmp_path / "clip/0.mp4").unlink()
    (tmp_path / "clip/1.mp4").write_bytes((tmp_path / "clip/2.mp4").read_bytes())
    result = run(checkpoint, spec, tmp_path / "out").result
    assert result["counts"]["not_asked"] == {"checksum": 1, "missing_video": 1}
    assert result["counts"]["asked"] == 1
    (tmp_path / "hay/0.mp4").unlink()
    with pytest.raises(DataError, match=r"none of the benchmark's 1 videos is there, the first would be .*hay/0\.mp4"):
        run(checkpoint, spec, tmp_path / "other")


def test_the_specification_of_another_evaluation_is_refused(checkpoint: Path, niah: Evaluation, tmp_path: Path) -> None:
    other = make_spec(tmp_path, seed=1, lengths=[20, 40])
    with pytest.raises(ConfigError, match="other questions"):
        run(checkpoint, other, niah.folder)
    assert json.loads((niah.folder / "result.json").read_text()) == niah.result
