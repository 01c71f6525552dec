"""Features of frames, kept or computed: the same bits, and no more memory than allowed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vilamp.models.frame_features import FrameFeatures, KeptFeatures


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
CHUNKS = ((0, 4), (4, 8), (8, 10))


def test_features_are_computed_each_time() -> None:
    tower = Tower()
    features = FrameFeatures(tower, FRAMES)
    assert len(features) == 10
    for _ in range(2):
        assert torch.equal(features.chunk(4, 8), tower(FRAMES[4:8]))
    assert features.chunk(0, 4).requires_grad, "a tower that trains needs its gradient"
    assert tower.seen == [4] * 5


def test_what_is_kept_is_computed_once_and_says_the_same() -> None:
    tower = Tower()
    kept = KeptFeatures(tower, FRAMES, room=10**6)
    first = [kept.chunk(*chunk) for chunk in CHUNKS]
    second = [kept.chunk(*chunk) for chunk in CHUNKS]
    assert tower.seen == [4, 4, 2] and kept.num_kept == 10
    for one, other, (start, stop) in zip(first, second, CHUNKS, strict=True):
        assert torch.equal(one, other) and torch.equal(one, tower(FRAMES[start:stop]))
        assert not other.requires_grad


def test_what_finds_no_room_is_computed_each_time() -> None:
    tower = Tower()
    kept = KeptFeatures(tower, FRAMES, room=CHUNK_BYTES)
    for _ in range(2):
        for start, stop in CHUNKS:
            assert torch.equal(kept.chunk(start, stop), Tower()(FRAMES[start:stop]))
    assert kept.num_kept == 4 and tower.seen == [4, 4, 2, 4, 2]


def test_no_room_keeps_nothing() -> None:
    kept = KeptFeatures(Tower(), FRAMES, room=0)
    kept.chunk(0, 4)
    assert kept.num_kept == 0
