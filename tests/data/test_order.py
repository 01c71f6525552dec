"""The order of the samples: arithmetic that loses and doubles nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilamp.data.order import EpochBatches, Mixed, Place, Position, epoch_order, num_steps, question_seed

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


shards = st.lists(st.integers(0, 12), min_size=1, max_size=16)
ranks = st.integers(1, 8)
workers = st.integers(0, 4)


def _consumed(batches: list[list[list[int]]], num_workers: int) -> list[list[int]]:
    """The numbers of every rank, in the order in which torch's loader has its workers hand them out."""
    consumed = []
    for of_rank in batches:
        hands = [of_rank[worker :: num_workers or 1] for worker in range(num_workers or 1)]
        taken = [hands[i % len(hands)][i // len(hands)] for i in range(len(of_rank))]
        consumed.append([number for batch in taken for number in batch])
    return consumed


def _ranks(size: int, batch_size: int, world_size: int, start: Position, epoch: int) -> list[EpochBatches]:
    made = [
        EpochBatches(size, batch_size, seed=7, shuffle=True, rank=rank, world_size=world_size, start=start)
        for rank in range(world_size)
    ]
    for batches in made:
        batches.set_epoch(epoch)
    return made


@given(shards, ranks, workers, st.integers(1, 4))
def test_every_sample_comes_once_and_every_rank_steps_equally_often(
    sizes: list[int], world_size: int, num_workers: int, batch_size: int
) -> None:
    size = sum(sizes)  # the index numbers the samples of all shards through, so that no shard belongs to anybody
    batches = [_numbers(of_rank) for of_rank in _ranks(size, batch_size, world_size, Position(), 2)]
    assert len({len(of_rank) for of_rank in batches}) == 1
    assert sorted(number for of_rank in _consumed(batches, num_workers) for number in of_rank) == list(range(size))


@given(shards, ranks, ranks, st.integers(1, 4), st.integers(1, 4), workers, st.data())
def test_from_any_position_other_ranks_go_on_with_the_rest_of_the_order(
    sizes: list[int],
    before: int,
    after: int,
    batch_before: int,
    batch_after: int,
    num_workers: int,
    data: st.DataObject,
) -> None:
    size, epoch = sum(sizes), 3
    first = _ranks(size, batch_before, before, Position(), epoch)
    done = data.draw(st.integers(0, len(first[0])))
    had = [number for of_rank in first for batch in _numbers(of_rank)[:done] for number in batch]
    position = first[0].position(epoch, done)
    order = epoch_order(size, 7, epoch).tolist()
    assert sorted(had) == sorted(order[: position.consumed])

    second = _ranks(size, batch_after, after, position, epoch)
    rest = [_numbers(of_rank) for of_rank in second]
    assert len({len(of_rank) for of_rank in rest}) == 1
    assert len(rest[0]) + second[0].done == len(second[0]), "Lightning counts as many batches as in any other epoch"
    together = [number for of_rank in _consumed(rest, num_workers) for number in of_rank]
    assert sorted(together) == sorted(order[position.consumed :])
    assert second[0].position(epoch, len(second[0])).consumed == size

    # It is killed once more, and goes on with a third number of ranks.
    step = data.draw(st.integers(second[0].done, len(second[0])))
    again = second[0].position(epoch, step)
    had = [number for of_rank in rest for batch in of_rank[: step - second[0].done] for number in batch]
    assert sorted(had) == sorted(order[position.consumed : again.consumed])

    for of_rank in second:
        of_rank.set_epoch(epoch + 1)
    whole = [number for of_rank in second for batch in _numbers(of_rank) for number in batch]
    assert sorted(whole) == list(range(size))
    assert second[0].position(epoch + 1, 1) == (epoch + 1, min(batch_after * after, size))


def test_workers_that_fetch_ahead_start_in_the_right_epoch() -> None:
    """They ask for the first batches before Lightning calls set_epoch."""
    batches = EpochBatches(9, 2, seed=5, shuffle=True, start=Position(3, 4))
    assert [place.number for batch in batches for place in batch] == epoch_order(9, 5, 3)[4:].tolist()


mixtures = st.lists(st.builds(Mixed, st.integers(1, 20), st.integers(1, 45)), max_size=3)


def _epochs(size: int, mixed: list[Mixed], count: int) -> list[list[Place]]:
    batches = EpochBatches(size, 3, seed=5, shuffle=True, mixed=mixed)
    epochs = []
    for epoch in range(count):
        batches.set_epoch(epoch)
        epochs.append([place for batch in batches for place in batch])
    return epochs


@given(st.integers(0, 30), mixtures)
def test_every_epoch_has_the_first_set_once_and_the_share_of_each_other(size: int, mixed: list[Mixed]) -> None:
    for epoch, places in enumerate(_epochs(size, mixed, 3)):
        assert sorted(place for place in places if place.number < size) == [(i, epoch) for i in range(size)]
        first = size
        for count, taken in mixed:
            assert sum(first <= place.number < first + count for place in places) == taken
            first += count
        assert len(places) == size + sum(one.taken for one in mixed)


@given(mixtures)
def test_a_set_that_is_mixed_in_goes_on_where_the_epoch_before_stopped(mixed: list[Mixed]) -> None:
    """After any number of epochs no sample of it was taken twice more often than another."""
    first, everything = 4, [place for places in _epochs(4, mixed, 5) for place in places]
    for count, taken in mixed:
        own = [place for place in everything if first <= place.number < first + count]
        assert len(set(own)) == len(own) == 5 * taken, "a sample once in each pass over the set"
        uses = Counter(place.number for place in own)
        assert max(uses.values()) - (min(uses.values()) if len(uses) == count else 0) <= 1
        first += count


def test_a_mixture_is_mixed_and_differs_between_epochs_and_without_it_nothing_changes() -> None:
    one, two = _epochs(40, [Mixed(40, 40)], 2)
    early = sum(place.number >= 40 for place in one[:40])
    assert 10 < early < 30
    assert [place.number for place in one] != [place.number for place in two]
    assert [place.number for place in _epochs(40, [], 1)[0]] == epoch_order(40, 5, 0).tolist()


@given(st.integers(1, 30), mixtures, few, few, st.integers(0, 60))
def test_ranks_share_a_mixture_and_the_rest_of_it(
    size: int, mixed: list[Mixed], batch_size: int, world_size: int, consumed: int
) -> None:
    whole = _epochs(size, mixed, 2)[1]
    start = Position(1, min(consumed, len(whole)))
    ranks = [
        list(
            EpochBatches(
                size, batch_size, seed=5, shuffle=True, rank=rank, world_size=world_size, start=start, mixed=mixed
            )
        )
        for rank in range(world_size)
    ]
    assert len({len(rank) for rank in ranks}) == 1
    assert sorted(place for rank in ranks for batch in rank for place in batch) == sorted(whole[start.consumed :])
