"""How sure a share of right answers is, and whether two differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959963984540054
"""The normal distribution holds 95 % within so many standard deviations."""
RESAMPLES = 2000


def wilson(right: float, total: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score, for questions that are independent.

    Args:
        right: how many are right; need not be whole where it comes from a rounded share.
        total: of how many, at least 1.
    """
    share = right / total
    middle = share + Z * Z / (2 * total)
    half = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    scale = 1 + Z * Z / total
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


def by_videos(rights: Sequence[bool], videos: Sequence[object]) -> tuple[float, float]:
    """The 95 % interval of a share where questions about one video go right and wrong together.

    The percentile bootstrap over videos, with a seed of its own: the same numbers give the same interval.

    Args:
        rights: of each question.
        videos: of each question, what tells its video.
    """
    numbers = {video: number for number, video in enumerate(dict.fromkeys(videos))}
    of = np.array([numbers[video] for video in videos])
    total, right = np.bincount(of), np.bincount(of, weights=np.array(rights, dtype=float))
    drawn = np.random.default_rng(0).integers(len(numbers), size=(RESAMPLES, len(numbers)))
    low, high = np.quantile(right[drawn].sum(1) / total[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test: that a question is as likely right in one alone as in the other alone.

    Args:
        only_first: questions that the first has right and the second wrong.
        only_second: the other way round.
    """
    total, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(total, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**total)
