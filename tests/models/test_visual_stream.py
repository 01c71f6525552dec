"""The visual stream: chunking changes nothing, nothing whole-video is built, tokens stand in temporal order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vilamp.interfaces import NO_ANCHOR, FrameMerger
from vilamp.mergers.attention import AttentionMerger
from vilamp.mergers.differential import DifferentialMerger
from vilamp.mergers.none import NoneMerger
from vilamp.mergers.random import RandomMerger
from vilamp.mergers.uniform import UniformMerger
from vilamp.models.anchors import BY_NUMBER, PRECEDING, RULES
from vilamp.models.frame_features import KeptFeatures
from vilamp.models.projector import Projector
from vilamp.models.visual_stream import View, VisualStream, interleave

PATCHES, WIDTH, QUERY = 9, 8, 6


class FakeTower(nn.Module):
    """A tower that a pencil could follow: one patch is one third of the picture's rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * 2 * 3, WIDTH)
        self.longest = 0

    def forward(self, frames: Tensor) -> Tensor:
        self.longest = max(self.longest, len(frames))
        picture = frames.to(self.linear.weight.dtype) / 255
        cells = picture.unfold(1, 2, 2).unfold(2, 2, 2)  # [n, 3, 3, channel, 2, 2]
        return torch.tanh(self.linear(cells.flatten(3).flatten(1, 2)))


MERGERS = {
    "differential": lambda: DifferentialMerger(dim=WIDTH, query_dim=QUERY),
    "uniform": UniformMerger,
    "random": RandomMerger,
    "attention": lambda: AttentionMerger(num_heads=2, dim=WIDTH, query_dim=QUERY),
    "none": NoneMerger,
}


class LanguageSpaceMerger(FrameMerger):
    """Works behind the projector, as a release-style merger does, and compares with the anchor."""

    space = "language"

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, patches, anchors, anchor_of, query, *, generator=None):
        has = (anchor_of != NO_ANCHOR).to(patches.dtype)[:, None, None]
        anchor = anchors[anchor_of.clamp(min=0)] if len(anchors) else torch.zeros_like(patches)
        return (patches - self.scale * has * anchor).mean(1, keepdim=True)


def make_stream(
    merger: FrameMerger, chunk_size: int, trainable_tower: bool = False, anchor: str = PRECEDING
) -> VisualStream:
    torch.manual_seed(0)
    tower = FakeTower().requires_grad_(trainable_tower)
    merges = merger.space == "vision"
    projector = Projector(keyframe_grid=2, newline=True, vision_dim=WIDTH, language_dim=10, merges=merges)
    for parameter in merger.parameters():
        nn.init.normal_(parameter, std=0.5)
    return VisualStream(tower, merger, projector, chunk_size, anchor).double()


def make_video(num_frames: int, seed: int = 0) -> Tensor:
    return torch.randint(
        0, 256, (num_frames, 6, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def view(keyframes: list[int], seed: int = 7) -> View:
    query = torch.linspace(-1, 1, QUERY, dtype=torch.float64)
    return View(torch.tensor(keyframes, dtype=torch.int64), query / query.norm(), seed)


def run(
    merger: FrameMerger,
    chunk_size: int,
    frames: Tensor,
    views: list[View],
    trainable_tower: bool,
    anchor: str = PRECEDING,
    forward: Callable[[VisualStream, Tensor, list[View]], list[Tensor]] = VisualStream.__call__,
):
    """The sequences of a video and the gradients of a loss that sees every number of them."""
    stream = make_stream(merger, chunk_size, trainable_tower, anchor)
    outputs = forward(stream, frames, views)
    loss = sum((output * torch.arange(1, output.shape[1] + 1)).square().sum() for output in outputs)
    loss.backward()
    return outputs, {name: p.grad for name, p in stream.named_parameters() if p.requires_grad}


def whole_video(stream: VisualStream, frames: Tensor, views: list[View]) -> list[Tensor]:
    """What the stream computes, written down for the whole video at once."""
    sequences = []
    for asked in views:
        patches, keyframes = stream.vision_tower(frames), asked.keyframes.tolist()
        if stream.merger.space == "language":
            patches = stream.projector.keyframe(patches)
        rest = [frame for frame in range(len(frames)) if frame not in keyframes]
        before = [sum(k < frame for k in keyframes) for frame in rest]
        if stream.anchor == PRECEDING:
            anchors = [keyframes[count - 1] if count else NO_ANCHOR for count in before]
        else:
            anchors = [count - 1 if count else frame for count, frame in zip(before, rest, strict=True)]
        generator = torch.Generator().manual_seed(asked.seed)
        anchor_of = torch.tensor(anchors, dtype=torch.int64)
        merged = stream.merger(patches[rest], patches, anchor_of, asked.query, generator=generator)
        if stream.merger.space == "language":
            tokens = stream.projector.pool(patches[keyframes])
        else:
            tokens, merged = stream.projector.project_keyframes(patches[keyframes]), stream.projector.merged(merged)
        sequence = interleave(tokens, merged, asked.keyframes, len(frames))
        sequences.append(torch.cat([sequence, stream.projector.newline[None]]))
    return sequences


def assert_same(one: tuple[list[Tensor], dict], other: tuple[list[Tensor], dict]) -> None:
    for sequence, its_twin in zip(one[0], other[0], strict=True):
        torch.testing.assert_close(sequence, its_twin, rtol=1e-9, atol=1e-12)
    for name, gradient in one[1].items():
        pair = [value for value in (gradient, other[1][name]) if value is not None]
        if len(pair) == 2:
            torch.testing.assert_close(*pair, rtol=1e-8, atol=1e-10)
        else:  # a part that no frame needed may have no gradient in one form and zeros in the other
            assert not any(value.any() for value in pair), name


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_chunk_size_gives_what_the_whole_video_gives(data: st.DataObject) -> None:
    num_frames = data.draw(st.integers(1, 12))
    chunk_size = data.draw(st.integers(1, num_frames))
    anchor = data.draw(st.sampled_from(RULES))
    make = data.draw(st.sampled_from([LanguageSpaceMerger, MERGERS["differential"], RandomMerger]))
    sets = data.draw(st.lists(st.sets(st.integers(0, num_frames - 1)), min_size=1, max_size=2))
    trainable_tower = data.draw(st.booleans())
    frames, views = make_video(num_frames), [view(sorted(keyframes)) for keyframes in sets]
    torch.manual_seed(1)
    whole = run(make(), chunk_size, frames, views, trainable_tower, anchor, whole_video)
    torch.manual_seed(1)
    assert_same(whole, run(make(), chunk_size, frames, views, trainable_tower, anchor))


@pytest.mark.parametrize("trainable_tower", [False, True])
@pytest.mark.parametrize("name", [*MERGERS, "language"])
@pytest.mark.parametrize("anchor", RULES)
def test_chunk_size_changes_neither_tokens_nor_gradients(anchor: str, name: str, trainable_tower: bool) -> None:
    frames = make_video(23)
    views = [view([0, 9, 10, 22]), view([5], seed=8), view(list(range(23)), seed=9), view([])]

    def build() -> FrameMerger:
        torch.manual_seed(1)
        return LanguageSpaceMerger() if name == "language" else MERGERS[name]()

    whole, whole_gradients = run(build(), 64, frames, views, trainable_tower, anchor)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in whole_gradients.values())
    for chunk_size in (1, 2, 7, 23):
        parts, gradients = run(build(), chunk_size, frames, views, trainable_tower, anchor)
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        for key, gradient in whole_gradients.items():
            assert (gradient is None) == (gradients[key] is None), key
            if gradient is not None:
                torch.testing.assert_close(gradient, gradients[key], rtol=1e-8, atol=1e-10)


def test_checkpointing_recomputes_the_same_random_draws() -> None:
    """With a trainable tower every chunk runs again in the backward pass; the random merger must repeat its pick."""
    frames, views = make_video(20), [view([3])]
    _, recomputed = run(RandomMerger(), 4, frames, views, trainable_tower=True)
    stream = make_stream(RandomMerger(), 4, trainable_tower=True)
    stream._stores_activations = lambda: False  # the plain graph, nothing recomputed
    output = stream(frames, views)[0]
    (output * torch.arange(1, output.shape[1] + 1)).square().sum().backward()
    for name, parameter in stream.named_parameters():
        torch.testing.assert_close(recomputed[name], parameter.grad, rtol=1e-9, atol=1e-12)


def test_the_tower_sees_a_chunk_at_a_time_and_once_for_all_questions() -> None:
    stream = make_stream(UniformMerger(), 8)
    seen = []
    stream.vision_tower.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    stream(make_video(30), [view([1]), view([2]), view([3])])
    assert seen == [8, 8, 8, 6]


def test_every_frame_is_projected_once_for_all_questions_before_a_merger_in_the_language_space() -> None:
    stream = make_stream(LanguageSpaceMerger(), 8, anchor=BY_NUMBER)
    seen = []
    stream.projector.keyframe.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    stream(make_video(30), [view([1, 20]), view([2]), view([])])
    assert seen == [8, 8, 8, 6]


def test_no_question_is_no_sequence() -> None:
    assert make_stream(UniformMerger(), 2, anchor=BY_NUMBER)(make_video(3), []) == []


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements of any floating tensor that an operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("name", [*MERGERS, "language"])
@pytest.mark.parametrize("trainable_tower", [False, True])
@pytest.mark.parametrize("anchor", RULES)
def test_no_tensor_grows_like_frames_times_patches_or_frames_squared(
    anchor: str, name: str, trainable_tower: bool
) -> None:
    """Memory is O(chunk * P + N): going from 40 to 160 frames may add tokens and nothing else."""
    frames = 160
    merger = LanguageSpaceMerger() if name == "language" else MERGERS[name]()
    stream = make_stream(merger, 4, trainable_tower, anchor)
    with LargestTensor() as largest:
        sum(output.sum() for output in stream(make_video(frames), [view([0, 80])])).backward()
    assert largest.numel < min(frames * PATCHES * WIDTH, frames * frames)


def test_a_merged_frame_is_compared_with_its_nearest_preceding_keyframe() -> None:
    class Record(FrameMerger):
        def forward(self, patches, anchors, anchor_of, query, *, generator=None):
            for row, anchor in zip(patches, anchor_of.tolist(), strict=True):
                compared.append((row, None if anchor == NO_ANCHOR else anchors[anchor]))
            return patches.mean(1, keepdim=True)

    compared: list = []
    frames = make_video(9)
    stream = make_stream(Record(), 2)
    stream(frames, [view([2, 3, 6])])
    patches = stream.vision_tower(frames)
    expected = {0: None, 1: None, 4: 3, 5: 3, 7: 6, 8: 6}
    assert len(compared) == len(expected)
    for (row, anchor), (index, anchor_index) in zip(compared, expected.items(), strict=True):
        torch.testing.assert_close(row, patches[index])
        if anchor_index is None:
            assert anchor is None
        else:
            torch.testing.assert_close(anchor, patches[anchor_index])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_interleave_is_temporal_order(data: st.DataObject) -> None:
    num_frames = data.draw(st.integers(1, 30))
    keyframes = sorted(data.draw(st.sets(st.integers(0, num_frames - 1), max_size=num_frames)))
    per_keyframe, per_frame = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 3))
    rest = [i for i in range(num_frames) if i not in keyframes]

    def tokens(indices: list[int], count: int) -> Tensor:
        """Every token says whose it is and which: frame + position / 10."""
        return (torch.tensor(indices).view(-1, 1, 1) + torch.arange(count).view(1, -1, 1) / 10.0).double()

    sequence = interleave(
        tokens(keyframes, per_keyframe), tokens(rest, per_frame), torch.tensor(keyframes, dtype=torch.int64), num_frames
    )
    expected = [
        frame + position / 10
        for frame in range(num_frames)
        for position in range(per_keyframe if frame in keyframes else per_frame)
    ]
    torch.testing.assert_close(sequence.flatten(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("room", [0, 2000, 10**6])
@pytest.mark.parametrize("anchor", RULES)
@pytest.mark.parametrize("name", [*MERGERS, "language"])
@torch.no_grad()
def test_kept_features_change_no_bit(name: str, anchor: str, room: int) -> None:
    """Question after question on kept features gives what each gives on the frames."""
    merger = LanguageSpaceMerger() if name == "language" else MERGERS[name]()
    stream, frames = make_stream(merger, 4, anchor=anchor), make_video(23)
    kept = KeptFeatures(stream.vision_tower, [frames], room)
    for asked in (view([2, 9, 10]), view([0, 22], seed=3), view([])):
        assert torch.equal(stream(kept, [asked])[0], stream(frames, [asked])[0])
    assert kept.num_kept == (23 if room == 10**6 else 0 if room == 0 else kept.num_kept)
