"""Parts of a video: the same frames as the whole has there, in whatever process, each kept apart in the cache."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.data.isolation import Budget
from vilamp.decoders.auto import AutoDecoder
from vilamp.embedding_cache import EmbeddingCache
from vilamp.samples import SkipSample
from vilamp.testing.barcodes import read_barcodes, write_video

SETTINGS = FrameSettings(5.0, 100, 80)
CLIP = write_video([512 * i for i in range(98)], Fraction(1, 12_800), options={"g": "30"})
NUMBERS = list(range(0, 98, 5))
READERS = [VideoReader(AutoDecoder(), SETTINGS), VideoReader(AutoDecoder(), SETTINGS, Budget(seconds=60, gib=1))]


@pytest.mark.parametrize("reader", READERS, ids=["here", "in a process of its own"])
@given(data=st.data())
@settings(max_examples=10)
def test_a_part_has_the_frames_that_the_whole_has_there(reader: VideoReader, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(NUMBERS) - 1))
    stop = data.draw(st.integers(start + 1, len(NUMBERS)))
    part = reader.read(CLIP, "clip", part=(start, stop))
    assert read_barcodes(part.frames.numpy()) == NUMBERS[start:stop]
    assert part.timestamps.tolist() == pytest.approx([number / 25 for number in NUMBERS[start:stop]])


@pytest.mark.parametrize("reader", READERS, ids=["here", "in a process of its own"])
@pytest.mark.parametrize("part", [(0, 21), (5, 5), (-1, 2), (30, 31)])
def test_frames_that_are_not_there_are_no_shorter_part(reader: VideoReader, part: tuple[int, int]) -> None:
    with pytest.raises(SkipSample, match=f"the video has 20 frames, numbers {part[0]} to {part[1] - 1} are wanted"):
        reader.read(CLIP, "clip", part=part)


def test_each_part_is_an_entry_of_its_own(tmp_path: Path) -> None:
    reader = VideoReader(AutoDecoder(), SETTINGS, cache=EmbeddingCache(tmp_path, "scorer"))
    found = [reader.read(CLIP, "clip", part=part) for part in (None, (0, 20), (0, 8), (8, 20))]
    assert len({video.lookup.key for video in found if video.lookup is not None}) == 4
    lookup, kept = found[2].lookup, torch.ones(8, 4)
    assert lookup is not None and reader.cache is not None
    reader.cache.store(lookup.key, kept, found[2].timestamps)
    again = reader.read(CLIP, "clip", part=(0, 8)).lookup
    assert again is not None and again.embeddings is not None and torch.equal(again.embeddings, kept)
