"""Needles in one haystack: each gets what its whole video would give, and the haystack is encoded once for all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_visual_stream import MERGERS, LanguageSpaceMerger, make_stream, make_video, view
from torch import Tensor

from vilamp.models.anchors import PRECEDING, RULES
from vilamp.models.spliced_stream import Splice, SplicedStream

BUILDS = {**MERGERS, "language space": LanguageSpaceMerger}


def whole(haystack: Tensor, splice: Splice) -> Tensor:
    """The frames of a splice, all at once."""
    behind = haystack[splice.before : splice.from_haystack]
    return torch.cat([haystack[: splice.before], splice.needle, behind])


@st.composite
def splices(draw: st.DrawFn) -> tuple[Tensor, list[Splice]]:
    """A haystack, and needles of several lengths in videos of several lengths."""
    haystack = make_video(draw(st.integers(1, 20)), seed=1)
    found = []
    for number in range(draw(st.integers(1, 4))):
        needle = make_video(draw(st.integers(1, 6)), seed=2 + number)
        taken = draw(st.integers(1, len(haystack)))
        length = taken + len(needle)
        keyframes = sorted(draw(st.sets(st.integers(0, length - 1), max_size=4)))
        found.append(Splice(view(keyframes, seed=number), needle, draw(st.integers(0, taken)), length))
    return haystack, found


@pytest.mark.parametrize("anchor", RULES)
@pytest.mark.parametrize("name", BUILDS)
@given(given=splices(), chunk_size=st.integers(1, 8), window=st.integers(1, 25))
@settings(max_examples=15)
def test_each_splice_gives_what_its_whole_video_gives(
    name: str, anchor: str, given: tuple[Tensor, list[Splice]], chunk_size: int, window: int
) -> None:
    haystack, asked = given
    stream = make_stream(BUILDS[name](), chunk_size, anchor=anchor)
    spliced = SplicedStream(stream, asked)
    for frames in haystack[: spliced.wanted].split(window):
        spliced.feed(frames)
    for splice, sequence in zip(asked, spliced.end(), strict=True):
        torch.testing.assert_close(sequence, stream(whole(haystack, splice), [splice.view])[0])


def test_the_haystack_is_encoded_once_for_all_and_nothing_learns() -> None:
    stream = make_stream(MERGERS["differential"](), 4, trainable_tower=True)
    seen: list[int] = []
    stream.vision_tower.register_forward_hook(lambda tower, given, out: seen.append(len(given[0])))
    asked = [Splice(view([0, 3]), make_video(2, seed=n), n, 22) for n in range(5)]
    spliced = SplicedStream(stream, asked)
    spliced.feed(make_video(20))
    assert sum(seen) == 20 + 5 * 2
    assert not any(sequence.requires_grad for sequence in spliced.end())


def test_a_haystack_that_ends_early_is_noticed() -> None:
    spliced = SplicedStream(
        make_stream(MERGERS["uniform"](), 4, anchor=PRECEDING), [Splice(view([]), make_video(2), 9, 12)]
    )
    spliced.feed(make_video(8))
    with pytest.raises(ValueError, match="8 of 12 frames"):
        spliced.end()
