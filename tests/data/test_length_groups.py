"""Samples of similar length follow each other, and nothing else about the order changes."""

from __future__ import annotations

import logging
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tars import annotation, write_tar
from test_dataset import encode

from vilamp.data.module import VideoDataModule
from vilamp.data.order import EpochBatches, LengthGroups, Mixed, Place, Position, grouped_by_length
from vilamp.data.packing.indexing import write_foreign_index
from vilamp.decoders.auto import AutoDecoder
from vilamp.errors import ConfigError, DataError
from vilamp.testing.barcodes import write_video

BEGIN = Position(3)
few = st.integers(1, 7)
lengths = st.lists(st.integers(0, 50), max_size=200).map(lambda values: np.array(values, dtype=np.int64))


def _batches(
    frames: np.ndarray, group: int, batch_size: int, world_size: int = 1, start: Position = BEGIN, **settings: Any
) -> list[list[list[Place]]]:
    """The batches of all ranks in one epoch."""
    size = len(frames) - sum(one.size for one in settings.get("mixed", ()))
    ranks = []
    for rank in range(world_size):
        batches = EpochBatches(
            size, batch_size, seed=7, shuffle=True, rank=rank, world_size=world_size, start=start,
            groups=LengthGroups(group, frames), **settings,
        )  # fmt: skip
        batches.set_epoch(3)
        ranks.append(list(batches))
    return ranks


def _flat(ranks: list[list[list[Place]]]) -> list[int]:
    """The numbers of global batch after global batch."""
    return [place.number for step in zip(*ranks, strict=True) for batch in step for place in batch]


@given(lengths, few, few, few)
def test_every_sample_comes_once_and_every_rank_steps_equally_often(
    frames: np.ndarray, group: int, batch_size: int, world_size: int
) -> None:
    ranks = _batches(frames, group, batch_size, world_size)
    assert len({len(rank) for rank in ranks}) == 1
    assert sorted(_flat(ranks)) == list(range(len(frames)))


@given(lengths, few, few, few)
def test_the_order_does_not_depend_on_what_it_is_cut_into(
    frames: np.ndarray, group: int, batch_size: int, world_size: int
) -> None:
    alone = _flat(_batches(frames, group, 1))
    ranks = _batches(frames, group, batch_size, world_size)
    together = batch_size * world_size
    for step, batches in enumerate(zip(*ranks, strict=True)):
        numbers = [place.number for batch in batches for place in batch]
        assert sorted(numbers) == sorted(alone[step * together : (step + 1) * together])


@given(lengths, few, few, few, few, few, st.data())
def test_from_any_position_any_ranks_and_batches_go_on_with_the_rest(
    frames: np.ndarray, group: int, before: int, batch_before: int, after: int, batch_after: int, data: st.DataObject
) -> None:
    first = _batches(frames, group, batch_before, before)
    done = data.draw(st.integers(0, len(first[0])))
    had = [place.number for rank in first for batch in rank[:done] for place in batch]
    position = Position(3, min(done * batch_before * before, len(frames)))
    assert len(had) == position.consumed
    rest = _batches(frames, group, batch_after, after, position)
    assert len({len(rank) for rank in rest}) == 1
    assert sorted([*had, *_flat(rest)]) == list(range(len(frames)))


@given(lengths, few, st.integers(0, 2**31), st.integers(0, 100))
def test_the_groups_of_a_window_are_ranges_of_length(frames: np.ndarray, group: int, seed: int, epoch: int) -> None:
    """Whole groups first, their windows equal parts of the epoch, and what fills no group as it was."""
    order = grouped_by_length(frames, group, seed, epoch)
    assert order.tolist() == grouped_by_length(frames, group, seed, epoch).tolist()
    whole = len(frames) // group * group
    assert order[whole:].tolist() == list(range(whole, len(frames)))
    groups = order[:whole].reshape(-1, group)
    of_window: defaultdict[int, list[list[int]]] = defaultdict(list)
    for members in groups:
        (window,) = {int(sample) // group * 4 // len(groups) for sample in members}  # no more than 50 groups in each
        of_window[window].append(frames[members].tolist())
    for window in of_window.values():
        ranges = [length for members in sorted(window) for length in members]
        assert ranges == sorted(ranges)


def test_a_large_set_is_grouped_closely_and_shuffled_from_group_to_group() -> None:
    frames = np.random.default_rng(0).uniform(0, 1000, 64 * 200)
    order = frames[grouped_by_length(frames, 64, 0, 0)].reshape(200, 64)
    assert np.ptp(order, axis=1).mean() < 1000 / 50 * 1.1, "each has a fiftieth of them"
    middles = order.mean(axis=1)
    assert abs(np.corrcoef(middles[:-1], middles[1:])[0, 1]) < 0.2
    assert abs(np.corrcoef(np.arange(200), middles)[0, 1]) < 0.2


def test_other_samples_meet_in_every_epoch_also_in_a_small_set() -> None:
    frames = np.arange(64, dtype=np.float64)
    epochs = []
    for epoch in range(4):
        batches = EpochBatches(64, 4, seed=7, shuffle=True, groups=LengthGroups(4, frames))
        batches.set_epoch(epoch)
        epochs.append({frozenset(place.number for place in batch) for batch in batches})
    for i, one in enumerate(epochs):
        for other in epochs[i + 1 :]:
            assert len(one & other) <= 3


def test_the_order_is_the_same_in_every_version() -> None:
    frames = np.array([5, 1, 9, 3, 3, 8, 0, 2, 7, 4], dtype=np.float64)
    order = grouped_by_length(np.tile(frames, 2), 2, 0, 0)
    assert order.tolist() == [6, 7, 5, 2, 9, 8, 14, 10, 1, 3, 16, 17, 4, 0, 11, 13, 15, 12, 19, 18]


@given(st.lists(st.integers(0, 50), min_size=8, max_size=40), few, few)
def test_mixed_sets_are_grouped_with_the_first(values: list[int], group: int, taken: int) -> None:
    frames, mixed = np.array(values, dtype=np.int64), [Mixed(5, taken)]
    plain = EpochBatches(len(values) - 5, 2, seed=7, shuffle=True, mixed=mixed)
    plain.set_epoch(3)
    (grouped,) = _batches(frames, group, 2, mixed=mixed)
    assert sorted(place for batch in grouped for place in batch) == sorted(place for batch in plain for place in batch)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos of 1, 2 or 9 frames and four samples of text, with an index; and a shard without one."""
    folder = tmp_path_factory.mktemp("grouped")
    clips = {seconds: write_video(list(range(seconds)), Fraction(1, 1)) for seconds in (1, 2, 9)}
    members = []
    for number in range(12):
        seconds = (1, 2, 9)[number % 3]
        members += [(f"{seconds}-{number:02}.json", annotation()), (f"{seconds}-{number:02}.mp4", clips[seconds])]
    members += [(f"0-{number}.json", annotation(video=None)) for number in range(4)]
    write_foreign_index(str(write_tar(folder / "train.tar", members)))
    write_tar(folder / "bare.tar", [("a.json", annotation(video=None))])
    return folder


def _module(shards: Path, **settings: Any) -> VideoDataModule:
    chosen = {"train": str(shards / "train.tar"), "val": None, "batch_size": 2, "seed": 3, "fps": 1.0} | settings
    return VideoDataModule(**chosen, encode=encode, decoder=AutoDecoder())


def test_batches_hold_videos_of_one_length(shards: Path) -> None:
    module = _module(shards, group_by_length=2, max_frames=4)
    module.setup()
    assert module.groups is not None and set(module.groups.lengths) == {0, 1, 2, 4}, "no more frames than are read"
    batches = list(module.train_dataloader())
    assert sum(batch.samples for batch in batches) == 16
    spread = [max(lengths) - min(lengths) for batch in batches if (lengths := [len(video) for video in batch.videos])]
    plain = _module(shards)
    plain.setup()
    assert sum(spread) < 8
    assert [place.number for batch in module.train_batches() for place in batch] != [
        place.number for batch in plain.train_batches() for place in batch
    ]


def test_a_run_goes_on_with_the_same_lengths_only(shards: Path) -> None:
    """They decide the order, of which a position is a part."""
    grouped, plain, cut = (
        _module(shards, **settings)
        for settings in ({"group_by_length": 2}, {}, {"group_by_length": 2, "max_frames": 4})
    )
    for module in (grouped, plain, cut):
        module.setup()
    assert len({module.digests()["train"] for module in (grouped, plain, cut)}) == 3


def test_shards_without_an_index_cannot_be_grouped(shards: Path) -> None:
    for settings in (
        {"train": [str(shards / "train.tar"), str(shards / "bare.tar")]},
        {"mix": {"old": {"shards": str(shards / "bare.tar"), "weight": 1}}},
    ):
        with pytest.raises(DataError, match=r"data\.group_by_length=2 needs the length .* `vilamp index` makes it"):
            _module(shards, group_by_length=2, **settings).setup()


def test_validation_needs_no_lengths_and_keeps_its_order(shards: Path) -> None:
    module = _module(shards, group_by_length=2, val=str(shards / "bare.tar"))
    module.setup()
    assert [question.key for batch in module.val_dataloader() for question in batch.questions] == ["a/0"]


@pytest.mark.parametrize("group", [0, -4, True, 2.5])
def test_a_group_is_a_number_of_videos(shards: Path, group: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.group_by_length must be a number of videos"):
        _module(shards, group_by_length=group)


@pytest.mark.parametrize(("group", "told"), [(3, True), (4, False)])
def test_groups_that_steps_cut_are_told(shards: Path, caplog: pytest.LogCaptureFixture, group: int, told: bool) -> None:
    module = _module(shards, group_by_length=group)
    module.setup()
    with caplog.at_level(logging.WARNING, "vilamp"):
        module.train_dataloader()
    assert ("no multiple of the 2 videos in a step" in caplog.text) == told
