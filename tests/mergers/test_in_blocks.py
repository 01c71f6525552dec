"""How frames are cut into blocks: all of them, in the order of their anchors, and no block too large."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from vilamp.interfaces import NO_ANCHOR
from vilamp.mergers import _in_blocks

PATCHES, DIM = 3, 2


@given(st.lists(st.integers(NO_ANCHOR, 4), max_size=40), st.integers(1, 9), st.booleans())
def test_every_frame_is_in_one_block_which_is_no_larger_than_allowed(anchor_of, size, in_turn) -> None:
    anchor_of = torch.tensor(sorted(anchor_of) if in_turn else anchor_of, dtype=torch.int64)
    frames = torch.arange(len(anchor_of))
    patches = torch.empty(len(frames), PATCHES, DIM)
    blocks = list(_in_blocks._blocks(patches, anchor_of, size * PATCHES * DIM))
    taken = [frames[block.frames] for block in blocks]
    assert sorted(torch.cat([frames[:0], *taken]).tolist()) == frames.tolist()
    for block, own in zip(blocks, taken, strict=True):
        told = [anchor for anchor, length in block.runs for _ in range(length)]
        assert 1 <= len(own) <= size and anchor_of[own].tolist() == told
        assert block.anchors == sorted({*told} - {NO_ANCHOR})


def test_frames_of_one_anchor_that_fit_no_block_are_cut_into_equal_parts() -> None:
    anchor_of = torch.tensor([0] * 2 + [1] * 10 + [2] + [3] * 3)
    runs = [block.runs for block in _in_blocks._blocks(torch.empty(16, PATCHES, DIM), anchor_of, 4 * PATCHES * DIM)]
    assert runs == [[(0, 2)], [(1, 3)], [(1, 3)], [(1, 4)], [(2, 1), (3, 3)]]
