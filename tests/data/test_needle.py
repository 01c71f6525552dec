"""The needle data: the same bytes for the same seed, made once, never half."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from vilamp.data import needle
from vilamp.data.annotations import parse_annotation
from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.data.needle import NeedleSet
from vilamp.data.needle_domain import DUSK
from vilamp.data.needle_scene import COLOURS, KINDS, PLACES, PLAIN, SHAPES, SIZE, Needle, draw_needle
from vilamp.data.needle_video import NeedleRecipe, draw_video, encode_mp4, plan_video
from vilamp.data.shards import index_shards
from vilamp.decoders.auto import AutoDecoder
from vilamp.errors import ConfigError, DataError

DISTINCT = NeedleRecipe(0, min_seconds=9, max_seconds=20, events=3, look_alikes=1, questions_per_video=4, native_fps=2)
ALIKE = NeedleRecipe(0, min_seconds=39, max_seconds=60, events=6, look_alikes=4, questions_per_video=8, native_fps=2)


def _small(root: Path, **settings: object) -> NeedleSet:
    small = {"train_videos": 3, "val_videos": 2, "min_seconds": 6, "max_seconds": 8, "events": 2, "native_fps": 2}
    small |= {"look_alikes": 1, "questions_per_video": 4, "videos_per_shard": 2, "num_workers": 0, "progress": False}
    return NeedleSet(root, **(small | settings))  # type: ignore[arg-type]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _prepare(root: Path) -> None:
    _small(root).prepare()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> NeedleSet:
    """A small set, made in this process."""
    small = _small(tmp_path_factory.mktemp("needle"))
    small.prepare()
    return small


def test_a_set_is_shards_like_any_other(made: NeedleSet) -> None:
    names = {split: [Path(path).name for path in paths] for split, paths in made.patterns().items()}
    assert names == {"train": ["train-000000.tar", "train-000001.tar"], "val": ["val-000000.tar"]}
    for split, count in (("train", 3), ("val", 2)):
        index = index_shards(made.patterns()[split], f"data.{split}")
        assert index.skips == []
        assert index.verified
        assert [sample.key for sample in index.samples] == [f"{split}-{i:06d}" for i in range(count)]
        for number, sample in enumerate(index.samples):
            plan = made.plan(split, number)
            annotation = parse_annotation(sample.read("json"))
            assert json.loads(sample.read("json")) == plan.annotation
            video = VideoReader(AutoDecoder(), FrameSettings(1.0, 256, SIZE)).read(sample.read("mp4"), sample.key)
            assert video.timestamps.tolist() == list(range(plan.seconds))
            assert all(end <= plan.seconds for question in annotation.questions for _, end in question.evidence)


def test_the_pictures_show_what_the_annotation_says(made: NeedleSet) -> None:
    sample = index_shards(made.patterns()["train"], "data.train").samples[0]
    frames = (
        VideoReader(AutoDecoder(), FrameSettings(2.0, 256, SIZE)).read(sample.read("mp4"), sample.key).frames.numpy()
    )
    for event in made.plan("train", 0).events:
        inside = [i for i in range(len(frames)) if event.needle.start <= i / 2 < event.needle.end]
        outside = [i for i in range(len(frames)) if i not in inside]
        colour = np.array(COLOURS[event.needle.colour])
        covered = (np.abs(frames.astype(int) - colour).max(axis=-1) < 40).mean(axis=(1, 2))
        assert covered[inside].min() > covered[outside].min() + 0.03


def test_the_same_settings_give_the_same_bytes_whoever_makes_them(made: NeedleSet, tmp_path: Path) -> None:
    again = _small(tmp_path, num_workers=2)
    again.prepare()
    assert again.folder.name == made.folder.name
    assert _bytes(again.folder) == _bytes(made.folder)


def test_the_same_frames_give_the_same_file_whatever_lies_in_memory(made: NeedleSet) -> None:
    frames = list(draw_video(made.recipe, "val", 0))
    encoded = {encode_mp4(frames, 2)}
    for size in range(8):
        beside = [frame.copy() for frame in frames] + [np.full(10_000 * size, 255, np.uint8)]
        encoded.add(encode_mp4(beside[: len(frames)], 2))
    assert len(encoded) == 1


def test_a_set_that_is_there_is_not_made_again(made: NeedleSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needle, "make_sample", lambda *_: pytest.fail("made again"))
    _small(made.root).prepare()


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"train_videos": 4}, {"val_videos": 1}, {"max_seconds": 9}, {"min_seconds": 7}, {"events": 1,
      "questions_per_video": 3},
     {"questions_per_video": 3}, {"native_fps": 3}, {"videos_per_shard": 3}, {"crowd": 4.0},
     {"min_seconds": 27, "max_seconds": 30, "look_alikes": 2, "questions_per_video": 2}],
)  # fmt: skip
def test_another_setting_is_another_set(tmp_path: Path, change: dict[str, int]) -> None:
    assert _small(tmp_path, **change).folder != _small(tmp_path).folder


def test_other_code_that_draws_is_another_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _small(tmp_path).folder
    edited = tmp_path / "needle_scene.py"
    edited.write_text(Path(str(needle.needle_scene.__file__)).read_text() + "\n")
    monkeypatch.setattr(needle.needle_scene, "__file__", str(edited))
    assert _small(tmp_path).folder != before


def test_how_it_is_made_does_not_name_it(tmp_path: Path) -> None:
    assert _small(tmp_path, num_workers=4, progress=True).folder == _small(tmp_path).folder


def test_an_interrupted_set_is_not_taken_for_whole(
    made: NeedleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = needle.make_sample

    def interrupted(recipe: NeedleRecipe, split: str, number: int) -> dict[str, str | bytes]:
        if (split, number) == ("val", 0):
            raise KeyboardInterrupt
        return make(recipe, split, number)

    small = _small(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(needle, "make_sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            small.prepare()
    assert not small.folder.exists()
    left = small.folder.with_suffix(".partial")
    assert (left / "train-000000.tar").exists()
    (left / "something-else").touch()
    small.prepare()
    assert _bytes(small.folder) == _bytes(made.folder)
    assert not left.exists()


def test_of_two_processes_at_once_one_makes_the_set(made: NeedleSet, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_prepare, args=(tmp_path,)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0]
    assert _bytes(_small(tmp_path).folder) == _bytes(made.folder)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data\.generate\.root: cannot write the needle data to .*file"):
        _small(tmp_path / "file").prepare()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"events": 9}, "events must be 1 .* to 8"), ({"events": 0}, "events must be 1"), ({"native_fps": 0}, "native"),
     ({"look_alikes": 6}, "look_alikes must be 1 to 5, .* got 6"), ({"look_alikes": 0}, "look_alikes must be 1 to 5"),
     ({"look_alikes": 3}, r"events must be 3 \(look_alikes\) to 8"), ({"max_seconds": 5}, "max_seconds"),
     ({"questions_per_video": 7}, "questions_per_video must be 1 to 6"), ({"min_seconds": 5}, "min_seconds"),
     ({"look_alikes": 2, "questions_per_video": 2}, "must satisfy 27 .* got min_seconds 6"),
     ({"seed": -1}, "seed"), ({"val_videos": 0}, "at least 1, got 3, 0 and 2")],
)  # fmt: skip
def test_settings_out_of_range_are_named(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=f"data.generate: .*{message}"):
        _small(tmp_path, **settings)


@pytest.mark.parametrize("recipe", [DISTINCT, ALIKE], ids=["distinct", "alike"])
@pytest.mark.parametrize("number", range(30))
def test_every_plan_keeps_its_promises(recipe: NeedleRecipe, number: int) -> None:
    plan = plan_video(recipe, "train", number)
    needles = [event.needle for event in plan.events]
    assert recipe.min_seconds <= plan.seconds <= recipe.max_seconds
    assert len({n.colour for n in needles}) == len(needles) == recipe.events
    assert all(n.shape in SHAPES and n.colour in COLOURS and n.place in PLACES for n in needles)
    assert all(first.end <= second.start + 1e-3 for first, second in pairwise(needles))
    assert needles[0].start >= 0 and needles[-1].end <= plan.seconds
    assert plan.cuts[0] == 0 and list(plan.cuts) == sorted(plan.cuts)
    questions = plan.annotation["questions"]
    assert isinstance(questions, list)
    assert len({(q["kind"], q["answer"], *q["evidence"][0]) for q in questions}) == recipe.questions_per_video
    assert all(q["answer"] not in q["question"] for q in questions)


@pytest.mark.parametrize("number", range(30))
def test_without_look_alikes_all_shapes_differ_and_all_events_are_short(number: int) -> None:
    needles = [event.needle for event in plan_video(DISTINCT, "train", number).events]
    assert len({n.shape for n in needles}) == DISTINCT.events
    assert all(1.9 < n.end - n.start <= 3.0 for n in needles)


@pytest.mark.parametrize("number", range(30))
def test_look_alikes_differ_in_place_and_one_of_them_stays(number: int) -> None:
    plan = plan_video(ALIKE, "train", number)
    (shape, count), *others = Counter(event.needle.shape for event in plan.events).most_common()
    assert count == ALIKE.look_alikes and [n for _, n in others] == [1] * (ALIKE.events - count)
    alike = [event.needle for event in plan.events if event.needle.shape == shape]
    assert len({n.place for n in alike}) == count
    seconds = sorted(event.needle.end - event.needle.start for event in plan.events)
    assert 11.9 < seconds[-1] <= 24.0 and all(1.9 < s <= 3.0 for s in seconds[:-1])
    assert max(alike, key=lambda n: n.end - n.start) == max(
        (event.needle for event in plan.events), key=lambda n: n.end - n.start
    )


@pytest.mark.parametrize("number", range(30))
def test_a_question_fits_one_event_alone(number: int) -> None:
    """What a question names (shape, colour, place) and what its answer adds belong to one event of the video."""
    plan = plan_video(ALIKE, "train", number)
    questions = plan.annotation["questions"]
    assert isinstance(questions, list)
    for question in questions:
        words = f"{question['question'].rstrip('?')} "
        fitting = [
            [event.needle.start, event.needle.end]
            for event in plan.events
            if all(
                getattr(event.needle, name) in words
                for name, values in (("shape", SHAPES), ("colour", COLOURS), ("place", PLACES))
                if any(f" {value} " in words or f" {value}, " in words for value in values)
            )
        ]
        assert [fitting[0]] == fitting == question["evidence"]


def test_videos_differ_between_numbers_splits_and_seeds() -> None:
    plans = [plan_video(replace(DISTINCT, seed=seed), split, number)
             for seed in range(3) for split in ("train", "val") for number in range(5)]  # fmt: skip
    assert len({plan.events for plan in plans}) == 30


def test_the_second_kind_looks_and_asks_otherwise_under_the_same_names() -> None:
    assert list(DUSK.colours) == list(PLAIN.colours) and DUSK.shapes == PLAIN.shapes and DUSK.places == PLAIN.places
    assert not set(DUSK.colours.values()) & set(PLAIN.colours.values()) and DUSK.border != PLAIN.border
    for kind in KINDS:
        assert len(set(DUSK.templates[kind]) | set(PLAIN.templates[kind])) == 4
    haystack = np.zeros((SIZE, SIZE, 3), np.uint8)
    drawn = {}
    for shape in SHAPES:
        picture = draw_needle(haystack, Needle(shape, "red", "centre"), look=DUSK)
        covered = (picture == DUSK.colours["red"]).all(axis=-1)
        assert 0.04 < covered.mean() < 0.2 and (picture == DUSK.border).all(axis=-1).any()
        before = (draw_needle(haystack, Needle(shape, "red", "centre")) == COLOURS["red"]).all(axis=-1)
        drawn |= {(shape, "dusk"): covered.tobytes(), (shape, "plain"): before.tobytes()}
    assert len(set(drawn.values())) == 16


def test_a_question_of_the_second_kind_is_searched_for_in_words_of_the_first() -> None:
    recipe = replace(ALIKE, look="dusk")
    plan, first = plan_video(recipe, "train", 0), plan_video(ALIKE, "train", 0)
    assert [event.needle for event in plan.events] == [event.needle for event in first.events]
    asked, asked_first = (one.annotation["questions"] for one in (plan, first))
    assert isinstance(asked, list) and isinstance(asked_first, list)
    for question, plain in zip(asked, asked_first, strict=True):
        kind = question["kind"]
        of_first = {PLAIN.templates[kind][0].format(shape=s, colour=c, place=p)
                    for s in SHAPES for c in COLOURS for p in PLACES}  # fmt: skip
        assert question["query"] in of_first and question["query"] != question["question"]
        named = {*SHAPES, *COLOURS, *PLACES} & set(question["question"].replace("?", "").replace(",", "").split())
        assert named == {*SHAPES, *COLOURS, *PLACES} & set(question["query"].replace("?", "").split())
        assert question["answer"] == plain["answer"] and "query" not in plain
    assert not np.array_equal(next(draw_video(recipe, "train", 0)), next(draw_video(ALIKE, "train", 0)))


def test_no_other_look_is_known() -> None:
    with pytest.raises(ConfigError, match=r"data\.generate: look must be one of plain, dusk, got noon"):
        NeedleSet("root", look="noon")


def test_a_crowd_shares_no_colour_or_shape_with_what_is_asked() -> None:
    crowded = replace(DISTINCT, min_seconds=60, max_seconds=90, crowd=6.0)
    for number in range(20):
        video, alone = plan_video(crowded, "train", number), plan_video(replace(crowded, crowd=None), "train", number)
        assert video.events == alone.events and video.annotation == alone.annotation, "nothing else has changed"
        assert alone.crowd == ()
        assert len(video.crowd) >= 3
        for of in ("colour", "shape"):
            asked = {getattr(event.needle, of) for event in video.events}
            assert not asked & {getattr(event.needle, of) for event in video.crowd}
        spans = sorted((event.needle.start, event.needle.end) for event in (*video.events, *video.crowd))
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        assert spans[0][0] > 0 and spans[-1][1] <= video.seconds
    looks = [event.needle.colour for i in range(40) for event in plan_video(crowded, "train", i).crowd]
    assert set(looks) == set(COLOURS), "every one in some video"


def test_a_crowd_can_be_seen() -> None:
    crowded = replace(DISTINCT, crowd=6.0)
    number = next(i for i in range(20) if plan_video(crowded, "val", i).crowd)
    frames = np.stack(list(draw_video(crowded, "val", number)))
    changed = (frames != np.stack(list(draw_video(DISTINCT, "val", number)))).any(axis=(1, 2, 3))
    spans = [(event.needle.start, event.needle.end) for event in plan_video(crowded, "val", number).crowd]
    shown = [any(start <= i / 2 < end for start, end in spans) for i in range(len(frames))]
    assert changed.tolist() == shown and any(shown)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crowd": 3.0}, r"crowd must be more than 3 seconds, or null, got 3\.0"),
        ({"crowd": "soon"}, "crowd must be more than 3 seconds, or null, got 'soon'"),
        ({"events": "many"}, "events must be a whole number, got 'many'"),
        ({"native_fps": 2.5}, r"native_fps must be a whole number, got 2\.5"),
        ({"crowd": float("inf")}, "crowd must be more than 3 seconds, or null, got inf"),
        ({"crowd": 9.0, "events": 8, "look_alikes": 2, "min_seconds": 60, "max_seconds": 60},
         "crowd needs a colour and a shape that none of the events has: lower events, got 8"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.generate: {message}"):
        _small(tmp_path, **settings)
