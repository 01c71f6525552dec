"""Features of frames, kept or computed: the same bits, and no more memory than allowed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vilamp.models.frame_features import FrameFeatures, KeptFeatures, Span, cut


class Tower(nn.Module):
    """Means of the channels, two of them a frame, and a list of what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.seen: list[int] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.seen.append(len(frames))
        return frames.float().mean(3).flatten(2)[:, :2] * self.scale


FRAMES = torch.arange(10 * 2 * 2 * 3, dtype=torch.uint8).view(10, 2, 2, 3)
CHUNK_BYTES = 4 * 2 * 2 * 4
CHUNKS = [[Span(0, 0, 4)], [Span(0, 4, 8)], [Span(0, 8, 10)]]


def test_features_are_computed_each_time() -> None:
    tower = Tower()
    features = FrameFeatures(tower, [FRAMES])
    assert features.lengths == [10]
    for _ in range(2):
        assert torch.equal(features.chunk([Span(0, 4, 8)]), tower(FRAMES[4:8]))
    assert features.chunk([Span(0, 0, 4)]).requires_grad, "a tower that trains needs its gradient"
    assert tower.seen == [4] * 5


def test_what_is_kept_is_computed_once_and_says_the_same() -> None:
    tower = Tower()
    kept = KeptFeatures(tower, [FRAMES], room=10**6)
    first = [kept.chunk(chunk) for chunk in CHUNKS]
    second = [kept.chunk(chunk) for chunk in CHUNKS]
    assert tower.seen == [4, 4, 2] and kept.num_kept == 10
    for one, other, (span,) in zip(first, second, CHUNKS, strict=True):
        assert torch.equal(one, other) and torch.equal(one, tower(FRAMES[span.start : span.stop]))
        assert not other.requires_grad


def test_what_finds_no_room_is_computed_each_time() -> None:
    tower = Tower()
    kept = KeptFeatures(tower, [FRAMES], room=CHUNK_BYTES)
    for _ in range(2):
        for (span,) in CHUNKS:
            assert torch.equal(kept.chunk([span]), Tower()(FRAMES[span.start : span.stop]))
    assert kept.num_kept == 4 and tower.seen == [4, 4, 2, 4, 2]


def test_no_room_keeps_nothing() -> None:
    kept = KeptFeatures(Tower(), [FRAMES], room=0)
    kept.chunk([Span(0, 0, 4)])
    assert kept.num_kept == 0


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(1, 25))
def test_chunks_are_full_and_hold_every_frame_once_in_order(lengths: list[int], chunk_size: int) -> None:
    chunks = list(cut(lengths, chunk_size))
    frames = [(s.video, frame) for spans in chunks for s in spans for frame in range(s.start, s.stop)]
    assert frames == [(video, frame) for video, length in enumerate(lengths) for frame in range(length)]
    sizes = [sum(map(len, spans)) for spans in chunks]
    assert all(size == chunk_size for size in sizes[:-1]) and all(0 < size <= chunk_size for size in sizes)
    for spans in chunks:
        assert len({span.video for span in spans}) == len(spans), "a video has one span in a chunk"


def test_a_chunk_of_several_videos_is_one_call_of_the_tower() -> None:
    tower, other = Tower(), FRAMES.flip(0)
    features = FrameFeatures(tower, [FRAMES, other])
    both = features.chunk([Span(0, 8, 10), Span(1, 0, 3)])
    assert tower.seen == [5]
    assert torch.equal(both, torch.cat([tower(FRAMES[8:]), tower(other[:3])]))


def test_videos_of_other_picture_sizes_are_told() -> None:
    with pytest.raises(ValueError, match=r"one height and width, got \[\(2, 2\), \(4, 2\)\]"):
        FrameFeatures(Tower(), [FRAMES, torch.zeros(3, 4, 2, 3, dtype=torch.uint8)])
