"""What the visual stream keeps of a video in memory, and how often it encodes a frame."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from test_visual_stream import MERGERS, FakeTower, LanguageSpaceMerger, make_stream, make_video, view
from torch import Tensor

from vilamp.models.preprocess import FramePreprocessor
from vilamp.models.visual_stream import VisualStream


class WatchedTower(FakeTower):
    """A frozen tower that knows which of its features are still in memory, whoever holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.features: list[weakref.ref[np.ndarray]] = []
        self.most_alive = 0
        self.frames = 0

    def alive(self) -> int:
        """How many chunks of features there are."""
        return sum(chunk() is not None for chunk in self.features)

    def forward(self, frames: Tensor) -> Tensor:
        self.most_alive = max(self.most_alive, self.alive())
        self.frames += len(frames)
        return self.watch(super().forward(frames))

    def watch(self, features: Tensor) -> Tensor:
        """The same numbers in memory that is watched from now on."""
        array = features.detach().numpy().copy()
        self.features.append(weakref.ref(array))
        return torch.from_numpy(array)  # shares the array, which lives as long as the tensor's memory


def watched(name: str, chunk_size: int, anchor: str) -> tuple[VisualStream, WatchedTower]:
    merger = LanguageSpaceMerger() if name == "language" else MERGERS[name]()
    stream = make_stream(merger, chunk_size)
    stream.anchor = anchor
    tower = WatchedTower().requires_grad_(False).double()
    stream.vision_tower = tower
    if merger.space == "vision":  # what a merger keeps for its gradients is not the features but its part of them
        merger.register_forward_pre_hook(lambda module, args: (tower.watch(args[0]), *args[1:]))
    return stream, tower


@pytest.mark.parametrize("anchor", ["preceding", "by_number"])
@pytest.mark.parametrize("name", [*MERGERS, "language"])
def test_features_of_a_frozen_tower_are_gone_before_the_next_chunk_comes(name: str, anchor: str) -> None:
    """In the forward pass and in the backward pass, and none are left between the two."""
    stream, tower = watched(name, 4, anchor)
    outputs = stream(make_video(30), [view([0, 9, 10, 22]), view([5])])
    assert (tower.most_alive, tower.alive()) == (0, 0)
    sum(output.sum() for output in outputs).backward()
    assert (tower.most_alive, tower.alive()) == (0, 0)


@pytest.mark.parametrize("name", ["differential", "attention"])
def test_the_watch_sees_what_plain_autograd_would_keep(name: str) -> None:
    stream, tower = watched(name, 4, "preceding")
    stream._stores_activations = lambda: False
    outputs = stream(make_video(30), [view([0, 9, 10, 22])])
    assert tower.alive() == 8 and outputs[0].requires_grad  # one for every chunk


@pytest.mark.parametrize(
    ("name", "passes"), [("differential", 2), ("attention", 2), ("language", 2), ("uniform", 1), ("none", 1)]
)
def test_every_frame_is_encoded_once_forward_and_once_more_only_for_gradients_that_need_it(
    name: str, passes: int
) -> None:
    """Keyframes too.  A merger that does not train needs no features in the backward pass."""
    stream, tower = watched(name, 4, "preceding")
    outputs = stream(make_video(30), [view([0, 9, 10, 22]), view([5])])
    assert tower.frames == 30
    sum(output.sum() for output in outputs).backward()
    assert tower.frames == passes * 30
    with torch.no_grad():
        stream(make_video(30), [view([3])])
    assert tower.frames == (passes + 1) * 30


def test_frames_on_the_device_of_the_tower_are_not_copied() -> None:
    stream = make_stream(MERGERS["differential"](), 4)
    video, seen = make_video(10), []
    stream.vision_tower.register_forward_pre_hook(lambda module, args: seen.append(args[0].data_ptr()))
    stream(video, [view([1])])
    assert seen == [video[start].data_ptr() for start in (0, 4, 8)]


def test_pixels_are_what_the_processor_says_and_the_frames_stay_as_they_are() -> None:
    preprocess = FramePreprocessor.__new__(FramePreprocessor)
    torch.nn.Module.__init__(preprocess)
    preprocess.size = 6
    preprocess.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
    preprocess.register_buffer("std", torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1))
    frames = make_video(3)
    before = frames.clone()
    expected = (frames.permute(0, 3, 1, 2).float() / 255 - preprocess.mean) / preprocess.std
    torch.testing.assert_close(preprocess(frames), expected)
    assert torch.equal(frames, before)
