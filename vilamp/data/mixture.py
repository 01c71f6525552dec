"""Training on several sets of shards at once, in a fixed proportion."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vilamp.data.needle import NeedleSet
from vilamp.data.order import Mixed
from vilamp.data.shard_sample import ShardIndex
from vilamp.errors import ConfigError

log = logging.getLogger(__name__)

Patterns = str | Sequence[str]


@dataclass(frozen=True)
class MixedSet:
    """A set that is mixed with ``data.train``: one of the values of ``data.mix``.

    Attributes:
        weight: so many of its samples for each sample of ``data.train``.
        shards: patterns; None takes the training videos of ``generate``.
        generate: data to make first.
    """

    weight: float
    shards: Patterns | None = None
    generate: NeedleSet | None = None

    @classmethod
    def of(cls, name: str, fields: Mapping[str, Any]) -> MixedSet:
        """Check and make one.

        Raises:
            ConfigError: a field is unknown or missing, or the weight is not positive.
        """
        setting, fields = f"data.mix.{name}", dict(fields)
        unknown = sorted(set(fields) - {"weight", "shards", "generate"})
        weight = fields.get("weight")
        if unknown or isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0:
            raise ConfigError(
                f"{setting} needs a positive weight (samples for each one of data.train) and shards, got {fields}"
            )
        if fields.get("shards") is None and fields.get("generate") is None:
            raise ConfigError(f"{setting}.shards names no shards to mix in; ~{setting} leaves the set out")
        return cls(**fields)


def together(
    train: ShardIndex, others: Sequence[ShardIndex], sets: Mapping[str, MixedSet]
) -> tuple[ShardIndex, list[Mixed]]:
    """All training sets as one index, and how much an epoch takes of those that are mixed in.

    Args:
        train: the samples of ``data.train``.
        others: those of the sets, in their order.
        sets: by name.
    """
    taken = [
        Mixed(len(index.samples), max(1, round(one.weight * len(train.samples))))
        for index, one in zip(others, sets.values(), strict=True)
    ]
    for name, one in zip(sets, taken, strict=True):
        log.info(
            "an epoch has %d samples of data.train, and %d of the %d of data.mix.%s",
            len(train.samples), one.taken, one.size, name,
        )  # fmt: skip
    everything = [train, *others]
    whole = ShardIndex(
        [sample for index in everything for sample in index.samples],
        [skip for index in everything for skip in index.skips],
        verified=all(index.verified for index in everything),
    )
    return whole, taken
