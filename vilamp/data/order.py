"""The order of the samples, as arithmetic.

The order of an epoch is a pure function of (seed, epoch).  It is cut into global batches of ``batch_size * world_size``
places, of which rank r takes every ``world_size``-th from the r-th on.  So a global batch of one size holds the same
samples for any number of ranks, no sample is lost or doubled, and all ranks have equally many steps: in the last global
batch, which may be smaller, a rank may have fewer samples or none.

Several sets can be mixed.  An epoch then has each sample of the first set once, and of every other set a fixed number,
which goes on where the epoch before stopped: through one shuffled pass over that set after the other.  This is a pure
function of (seed, epoch), too.

Samples of similar length can be grouped.  The order then depends on their lengths as well, and on nothing else: a group
has its own size, whatever the batches are that the order is cut into.

A position in an epoch is the number of its samples that are consumed.  What comes after it is the rest of the same
order, which can be cut anew: by another number of ranks or another batch size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

LARGEST_WINDOW = 50
"""Groups among which samples are sorted by length."""
LEAST_WINDOWS = 4
"""Of an epoch: a small set that was sorted as one would have the same samples together in every epoch."""


class Place(NamedTuple):
    """What a worker is asked for: the sample's number in the index, and the epoch that its random choices belong to.

    For a sample of a set that is mixed in, the epoch is the number of the pass over that set.
    """

    number: int
    epoch: int


class Mixed(NamedTuple):
    """A set that is mixed in: how many samples it has, and how many of them an epoch takes."""

    size: int
    taken: int


class LengthGroups(NamedTuple):
    """How samples are grouped: so many of similar length follow each other.

    Attributes:
        size: samples of a group.
        lengths: int64[n], of each sample in the index.
    """

    size: int
    lengths: np.ndarray


class Position(NamedTuple):
    """Where training stands: so many samples of the epoch's order are consumed, and all of the epochs before."""

    epoch: int = 0
    consumed: int = 0


def epoch_order(size: int, seed: int | str, epoch: int) -> np.ndarray:
    """The shuffled numbers 0..size-1 of an epoch, int64[size].

    Sorted raw words of a counter-based generator: unlike ``permutation`` or ``randperm``, their values are the same in
    every version of the library.
    """
    key = int.from_bytes(_digest(seed, epoch), "little")
    return np.argsort(np.random.Philox(key=key).random_raw(size), kind="stable").astype(np.int64)


def mixed_places(size: int, mixed: Sequence[Mixed], seed: int, epoch: int) -> np.ndarray:
    """The shuffled places of an epoch, int64[n, 2]: number in the index, epoch of its random choices.

    Args:
        size: samples of the first set, numbered from 0.
        mixed: the other sets, numbered on in this order.
        seed: of the order.
        epoch: its number.
    """
    parts = [np.stack([np.arange(size), np.full(size, epoch)], axis=1)]
    first = size
    for index, (count, taken) in enumerate(mixed):
        passes, within = np.divmod(np.arange(epoch * taken, (epoch + 1) * taken), count)
        numbers = np.concatenate(
            [epoch_order(count, f"{seed}/{index}", one)[within[passes == one]] for one in np.unique(passes).tolist()]
        )
        parts.append(np.stack([first + numbers, passes], axis=1))
        first += count
    places = np.concatenate(parts)
    return places[epoch_order(len(places), seed, epoch)]


def grouped_by_length(lengths: np.ndarray, group: int, seed: int | str, epoch: int) -> np.ndarray:
    """How to reorder an epoch so that samples of similar length follow each other.

    The epoch is cut into windows, whose samples are sorted by length and cut into groups; then the groups of all
    windows are shuffled.  What does not fill a group stays at the epoch's end.

    Args:
        lengths: int64[n], of the samples in the order of the epoch.
        group: samples of a group.
        seed: of the order.
        epoch: its number.

    Returns:
        int64[n], which sample of that order comes at each place.
    """
    groups = len(lengths) // group
    whole = groups * group
    windows = max(LEAST_WINDOWS, -(-groups // LARGEST_WINDOW))
    window_of = (np.arange(groups) * windows // max(groups, 1)).repeat(group)
    by_length = np.lexsort((lengths[:whole], window_of)).reshape(groups, group)
    shuffled = by_length[epoch_order(groups, f"{seed}/groups", epoch)].ravel()
    return np.concatenate([shuffled, np.arange(whole, len(lengths))])


def question_seed(seed: int, epoch: int, key: str) -> int:
    """Seeds the random choices made for one question: 0 <= result < 2^63, the same on every machine."""
    return int.from_bytes(_digest(seed, epoch, key)[:8], "little") >> 1


def _digest(*values: int | str) -> bytes:
    return hashlib.blake2b("/".join(map(str, values)).encode(), digest_size=16).digest()


def num_steps(size: int, batch_size: int, world_size: int) -> int:
    """Global batches in an epoch, which is the number of steps of every rank."""
    return -(-size // (batch_size * world_size))


def rank_batch(order: np.ndarray, step: int, batch_size: int, rank: int, world_size: int) -> np.ndarray:
    """The part of ``order`` that a rank handles in a step: its first axis has 0 <= n <= batch_size."""
    globally = batch_size * world_size
    return order[step * globally : (step + 1) * globally][rank::world_size]


class EpochBatches(Sampler[list[Place]]):
    """The batches of one rank, as a batch sampler for torch's DataLoader.

    Args:
        size: samples in the data, without what is mixed in.
        batch_size: samples of one rank in a step.
        seed: of the order.
        shuffle: whether the epochs differ; without it every epoch is epoch 0 and in the order of the index.
        rank, world_size: of the process.
        start: where the first iteration goes on.  The epoch of ``start`` has as many batches as any other: its first
            :attr:`done` count as had, whatever the batches were that consumed its samples.
        mixed: sets that are mixed in; only with ``shuffle``.
        groups: of similar length, and the lengths of all samples, mixed ones too; only with ``shuffle``.

    Attributes:
        size: samples in an epoch.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        start: Position = Position(),  # noqa: B008  (it cannot be changed)
        mixed: Sequence[Mixed] = (),
        groups: LengthGroups | None = None,
    ) -> None:
        self.first = size
        self.mixed = tuple(mixed)
        self.size = size + sum(one.taken for one in self.mixed)
        self.batch_size = batch_size
        self.groups = groups
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.start = start
        self.epoch = start.epoch  # workers fetch ahead before anybody calls set_epoch

    @property
    def sampler(self) -> EpochBatches:
        """Itself: Lightning calls ``set_epoch`` on a batch sampler's ``sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs through."""
        self.epoch = epoch

    @property
    def done(self) -> int:
        """Batches that the epoch of ``start`` has less than the others."""
        return len(self) - num_steps(self.size - self.start.consumed, self.batch_size, self.world_size)

    def position(self, epoch: int, batches: int) -> Position:
        """Where training stands after so many batches of an epoch (with :attr:`done`, in the epoch of ``start``)."""
        consumed, before = (self.start.consumed, self.done) if epoch == self.start.epoch else (0, 0)
        return Position(epoch, min(consumed + (batches - before) * self.batch_size * self.world_size, self.size))

    def __len__(self) -> int:
        return num_steps(self.size, self.batch_size, self.world_size)

    def _order(self) -> np.ndarray:
        """The places of the epoch, int64[n, 2]."""
        if not self.shuffle:
            return np.stack([np.arange(self.size), np.zeros(self.size, dtype=np.int64)], axis=1)
        order = mixed_places(self.first, self.mixed, self.seed, self.epoch)
        if self.groups is None:
            return order
        return order[grouped_by_length(self.groups.lengths[order[:, 0]], self.groups.size, self.seed, self.epoch)]

    def __iter__(self) -> Iterator[list[Place]]:
        order = self._order()
        if self.epoch == self.start.epoch:
            order = order[self.start.consumed :]
        for step in range(num_steps(len(order), self.batch_size, self.world_size)):
            batch = rank_batch(order, step, self.batch_size, self.rank, self.world_size)
            yield [Place(int(number), int(epoch)) for number, epoch in batch]
