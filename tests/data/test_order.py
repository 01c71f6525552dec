"""The order of the samples: arithmetic that loses and doubles nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilamp.data.order import EpochBatches, epoch_order, num_steps, question_seed

sizes = st.integers(0, 200)
few = st.integers(1, 7)


def _numbers(batches: EpochBatches) -> list[list[int]]:
    return [[place.number for place in batch] for batch in batches]


@given(sizes, st.integers(0, 2**63), st.integers(0, 1000))
def test_an_epoch_holds_every_sample_once_and_is_a_function_of_seed_and_epoch(size: int, seed: int, epoch: int) -> None:
    order = epoch_order(size, seed, epoch)
    assert sorted(order.tolist()) == list(range(size))
    assert order.tolist() == epoch_order(size, seed, epoch).tolist()


def test_seeds_and_epochs_give_different_orders() -> None:
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_the_order_is_the_same_in_every_version() -> None:
    """What a checkpoint's position means must not change with a library."""
    assert epoch_order(10, 0, 0).tolist() == [3, 7, 6, 9, 2, 0, 5, 4, 1, 8]
    assert question_seed(0, 1, "clip/0") == 7786315850741404606


def test_every_place_is_equally_likely() -> None:
    counts = Counter(int(epoch_order(5, seed, 0)[0]) for seed in range(2000))
    assert all(abs(counts[number] - 400) < 100 for number in range(5))


@given(sizes, few, few, st.booleans())
def test_ranks_share_the_samples_and_take_equally_many_steps(
    size: int, batch_size: int, world_size: int, shuffle: bool
) -> None:
    ranks = [
        _numbers(EpochBatches(size, batch_size, seed=3, shuffle=shuffle, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert sorted(number for rank in ranks for batch in rank for number in batch) == list(range(size))
    assert {len(rank) for rank in ranks} == {num_steps(size, batch_size, world_size)}
    assert all(len(batch) <= batch_size for rank in ranks for batch in rank)
    # Full everywhere except in the last step.
    assert all(len(batch) == batch_size for rank in ranks for batch in rank[:-1])


@given(sizes, st.sampled_from([(8, 1), (4, 2), (2, 4), (1, 8)]))
def test_a_global_batch_holds_the_same_samples_for_any_number_of_ranks(size: int, shape: tuple[int, int]) -> None:
    batch_size, world_size = shape
    ranks = [
        _numbers(EpochBatches(size, batch_size, seed=1, shuffle=True, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    together = [sorted(number for batch in step for number in batch) for step in zip(*ranks, strict=True)]
    alone = [sorted(batch) for batch in _numbers(EpochBatches(size, 8, seed=1, shuffle=True))]
    assert together == alone


def test_the_epoch_is_set_from_outside_and_comes_with_every_place() -> None:
    batches = EpochBatches(20, 3, seed=5, shuffle=True)
    batches.sampler.set_epoch(4)
    places = [place for batch in batches for place in batch]
    assert {place.epoch for place in places} == {4}
    assert [place.number for place in places] == epoch_order(20, 5, 4).tolist()


def test_unshuffled_every_epoch_is_the_first_and_in_the_order_of_the_index() -> None:
    batches = EpochBatches(5, 2, seed=5, shuffle=False)
    batches.set_epoch(4)
    assert list(batches) == [[(0, 0), (1, 0)], [(2, 0), (3, 0)], [(4, 0)]]
    assert len(batches) == 3


@given(st.integers(0, 2**31), st.integers(0, 100), st.text(max_size=20))
def test_question_seeds_fit_torch_and_depend_on_all_three(seed: int, epoch: int, key: str) -> None:
    value = question_seed(seed, epoch, key)
    assert 0 <= value < 2**63
    assert value != question_seed(seed + 1, epoch, key)
    assert value != question_seed(seed, epoch + 1, key)
    assert value != question_seed(seed, epoch, key + "x")


@pytest.mark.parametrize("size", [0, 1, 10**5])
def test_orders_of_any_size(size: int) -> None:
    order = epoch_order(size, 0, 0)
    assert order.dtype == np.int64
    assert len(order) == size
