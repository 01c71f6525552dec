"""Which frame every merged frame is compared with, chunk by chunk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vilamp.interfaces import NO_ANCHOR
from vilamp.models.anchors import Part, frames_by_number, grow, preceding_keyframes

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = json.loads((GOLDEN / "full_cases.json").read_text())["cases"]


def numbered(*frames: int) -> Tensor:
    """Frames of one patch whose one feature is the frame's number."""
    return torch.tensor(frames, dtype=torch.float64).view(-1, 1, 1)


def compared(anchors: Tensor, anchor_of: Tensor) -> list[int | None]:
    return [None if row == NO_ANCHOR else int(anchors[row, 0, 0]) for row in anchor_of.tolist()]


def by_number(keyframes: list[int], num_frames: int, chunk_size: int) -> dict[int, int | None]:
    """{merged frame: the frame that it is compared with}, as the stream goes through the video."""
    found, first = {}, None
    for start in range(0, num_frames, chunk_size):
        chunk = numbered(*range(start, min(start + chunk_size, num_frames)))
        part = Part.of(torch.tensor(keyframes, dtype=torch.int64), start, start + len(chunk))
        first = grow(first, chunk, len(keyframes))
        pairs = compared(*frames_by_number(part, chunk[part.rest], first))
        found.update(zip((start + part.rest).tolist(), pairs, strict=True))
    assert (0 if first is None else len(first)) == len(keyframes), "K frames are kept, no more"
    return found


def preceding(keyframes: list[int], num_frames: int, chunk_size: int) -> dict[int, int | None]:
    found, last = {}, None
    for start in range(0, num_frames, chunk_size):
        chunk = numbered(*range(start, min(start + chunk_size, num_frames)))
        part = Part.of(torch.tensor(keyframes, dtype=torch.int64), start, start + len(chunk))
        pairs = compared(*preceding_keyframes(part, chunk[part.keyframes], last))
        found.update(zip((start + part.rest).tolist(), pairs, strict=True))
        last = chunk[part.keyframes][-1:] if len(part.keyframes) else last
    return found


@st.composite
def videos(draw: st.DrawFn) -> tuple[list[int], int, int]:
    num_frames = draw(st.integers(1, 30))
    keyframes = sorted(draw(st.sets(st.integers(0, num_frames - 1), max_size=num_frames)))
    return keyframes, num_frames, draw(st.integers(1, num_frames))


@given(videos())
def test_frames_are_compared_by_number(video: tuple[list[int], int, int]) -> None:
    keyframes, num_frames, _ = video
    expected = {}
    for frame in set(range(num_frames)) - set(keyframes):
        so_far = sum(keyframe < frame for keyframe in keyframes)
        expected[frame] = so_far - 1 if so_far else frame
    assert by_number(*video) == expected


@given(videos())
def test_frames_are_compared_with_the_preceding_keyframe(video: tuple[list[int], int, int]) -> None:
    keyframes, num_frames, _ = video
    rest = set(range(num_frames)) - set(keyframes)
    assert preceding(*video) == {frame: max((k for k in keyframes if k < frame), default=None) for frame in rest}


@pytest.mark.parametrize("chunk_size", [1, 5, 64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_release_compares_by_number(case: dict, chunk_size: int) -> None:
    keyframes, anchors = case["selected_after_fillup"][0], case["anchor_frame_as_run"][0]
    expected = {frame: anchor for frame, anchor in enumerate(anchors) if frame not in keyframes}
    assert by_number(keyframes, len(anchors), chunk_size) == expected


@pytest.mark.parametrize(("keyframes", "start", "stop"), [([], 0, 6), ([5], 0, 3), ([0, 2], 4, 8)])
def test_nothing_is_copied_where_all_frames_have_the_same_kind_of_anchor(keyframes, start: int, stop: int) -> None:
    chunk, first = numbered(*range(start, stop)), numbered(0, 1)
    part = Part.of(torch.tensor(keyframes, dtype=torch.int64), start, stop)
    anchors, _ = frames_by_number(part, chunk, first)
    source = first if start else chunk
    assert anchors.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
