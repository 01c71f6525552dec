"""The visual stream over the videos of a batch: full chunks, and to each question what its video alone would give."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stream_memory import watched
from test_visual_stream import (
    MERGERS,
    LanguageSpaceMerger,
    assert_same,
    make_stream,
    make_video,
    run,
    view,
    whole_video,
)
from torch import Tensor

from vilamp.interfaces import FrameMerger
from vilamp.models import visual_stream
from vilamp.models.anchors import BY_NUMBER, RULES
from vilamp.models.frame_features import FrameFeatures
from vilamp.models.visual_stream import View, VisualStream


def together(stream: VisualStream, videos: list[Tensor], views: list[View]) -> list[Tensor]:
    """All videos in one stream."""
    return stream(FrameFeatures(stream.vision_tower, videos), views)


def one_by_one(stream: VisualStream, videos: list[Tensor], views: list[View]) -> list[Tensor]:
    """Each question about the whole of its video, without a stream."""
    return [whole_video(stream, videos[asked.video], [asked])[0] for asked in views]


def merger_of(name: str) -> FrameMerger:
    torch.manual_seed(1)
    return LanguageSpaceMerger() if name == "language" else MERGERS[name]()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_each_question_gets_what_its_video_alone_gives(data: st.DataObject) -> None:
    """Tokens and gradients, for videos of any length, some without a question, and chunks of any size."""
    lengths = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    chunk_size = data.draw(st.integers(1, sum(lengths) + 1))
    name = data.draw(st.sampled_from([*MERGERS, "language"]))
    anchor, trainable_tower = data.draw(st.sampled_from(RULES)), data.draw(st.booleans())
    videos = [make_video(length, seed) for seed, length in enumerate(lengths)]
    views = []
    for seed, video in enumerate(data.draw(st.lists(st.integers(0, len(videos) - 1), min_size=1, max_size=5))):
        keyframes = sorted(data.draw(st.sets(st.integers(0, lengths[video] - 1))))
        views.append(replace(view(keyframes, seed), video=video))
    expected: Any = run(merger_of(name), 1, videos, views, trainable_tower, anchor, one_by_one)
    found: Any = run(merger_of(name), chunk_size, videos, views, trainable_tower, anchor, together)
    assert_same(expected, found)


VIDEOS = [make_video(length, seed) for seed, length in enumerate((3, 9, 2, 1, 5))]
VIEWS = [replace(view(keyframes, seed=video), video=video) for video, keyframes in
         ((1, [0, 8]), (0, [1]), (4, [2]), (1, [4]), (2, [1]), (3, []))]  # fmt: skip


def test_chunks_are_full_across_videos() -> None:
    """Twenty frames in chunks of eight are three calls, where five videos one after the other were six."""
    stream, seen = make_stream(MERGERS["differential"](), 8), []
    stream.vision_tower.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    together(stream, VIDEOS, VIEWS)
    assert seen == [8, 8, 4]
    seen.clear()
    for video, frames in enumerate(VIDEOS):
        stream(frames, [replace(one, video=0) for one in VIEWS if one.video == video])
    assert seen == [3, 8, 1, 2, 1, 5]


def test_a_video_without_a_question_is_not_encoded() -> None:
    stream, seen = make_stream(MERGERS["differential"](), 8), []
    stream.vision_tower.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    together(stream, VIDEOS, [one for one in VIEWS if one.video in (0, 2)])
    assert torch.equal(torch.cat(seen), torch.cat([VIDEOS[0], VIDEOS[2]]))
    assert together(stream, VIDEOS, []) == [] and len(seen) == 1


@pytest.mark.parametrize("anchor", RULES)
@pytest.mark.parametrize("name", [*MERGERS, "language"])
def test_features_are_gone_before_the_next_chunk_comes(name: str, anchor: str) -> None:
    """In both passes, and every frame is encoded once in each that needs it."""
    stream, tower = watched(name, 4, anchor)
    outputs = together(stream, VIDEOS, VIEWS)
    assert (tower.most_alive, tower.alive(), tower.frames) == (0, 0, 20)
    sum(output.sum() for output in outputs).backward()
    assert (tower.most_alive, tower.alive()) == (0, 0)
    assert tower.frames == (20 if name in ("none", "uniform", "random") else 40)


@pytest.mark.parametrize("trains", [False, True])
def test_what_a_video_carries_does_not_outlive_it(monkeypatch: pytest.MonkeyPatch, trains: bool) -> None:
    """However many videos there are; in training it waits for the backward pass where a chunk's end cuts the video."""
    carried: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def grow(first: Tensor | None, patches: Tensor, wanted: int) -> Tensor | None:
        alive.append(sum(one() is not None for one in carried))
        grown = original(first, patches, wanted)
        if grown is not first:
            carried.append(weakref.ref(grown))
        return grown

    original = visual_stream.grow
    monkeypatch.setattr(visual_stream, "grow", grow)
    stream = make_stream(MERGERS["differential"](), 5, anchor=BY_NUMBER)
    videos = [make_video(3, seed) for seed in range(20)]
    with torch.set_grad_enabled(trains):
        outputs = together(stream, videos, [replace(view([1], seed), video=seed) for seed in range(20)])
    cut = sum(end % 3 > 0 for end in range(5, 60, 5))
    assert cut == 8 and len(carried) == 20, "one question, one keyframe: the first frame of each video"
    assert max(alive) <= (cut if trains else 0) + 2, "that of the video before, and of this one"
    assert sum(one() is not None for one in carried) <= (cut if trains else 0)
    if trains:
        sum(output.sum() for output in outputs).backward()
        del outputs
        assert not any(one() is not None for one in carried)
