"""What the three baselines are: evenly spread, drawn by lot, and the most relevant."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from vilamp.interfaces import FrameSelector
from vilamp.selectors.attention import AttentionSelector
from vilamp.selectors.random import RandomSelector
from vilamp.selectors.uniform import UniformSelector
from vilamp.testing.kit import seeded

LENGTHS, COUNTS, SEEDS = st.integers(1, 400), st.integers(1, 60), st.integers(0, 10**6)


def noise(length: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(length, 8, generator=seeded(seed)), dim=-1)


def select(
    selector: FrameSelector, frames: Tensor, query: Tensor, num_keyframes: int, generator: torch.Generator | None = None
) -> list[int]:
    timestamps = torch.arange(len(frames), dtype=torch.float64)
    return selector(frames, query, num_keyframes, timestamps=timestamps, generator=generator).keyframes.tolist()


@given(LENGTHS, COUNTS)
def test_uniform_covers_the_video_evenly(length, count) -> None:
    chosen = select(UniformSelector(), noise(length), noise(1)[0], count)
    count = min(count, length)
    assert len(chosen) == count
    assert max(abs(after - before - length / count) for before, after in pairwise([*chosen, chosen[0] + length])) < 1
    before_first, after_last = chosen[0], length - 1 - chosen[-1]
    assert abs(before_first - after_last) <= 1


def test_uniform_takes_the_middle_of_each_span() -> None:
    assert select(UniformSelector(), noise(100), noise(1)[0], 4) == [12, 37, 62, 87]
    assert select(UniformSelector(), noise(5), noise(1)[0], 1) == [2]


@given(SEEDS)
def test_uniform_does_not_look_at_the_question(seed) -> None:
    assert select(UniformSelector(), noise(50, seed), noise(1, seed + 1)[0], 7) == [3, 10, 17, 25, 32, 39, 46]


@given(LENGTHS, COUNTS, SEEDS)
def test_random_draws_k_frames_without_looking_at_them(length, count, seed) -> None:
    chosen = select(RandomSelector(), noise(length), noise(1)[0], count, seeded(seed))
    assert len(chosen) == min(count, length)
    assert chosen == select(RandomSelector(), noise(length, 1), noise(1, 2)[0], count, seeded(seed))


def test_random_draws_every_set_of_frames_equally_often() -> None:
    generator, draws = seeded(), 3000
    seen = Counter(tuple(select(RandomSelector(), noise(5), noise(1)[0], 2, generator)) for _ in range(draws))
    assert set(seen) == set(combinations(range(5), 2))
    expected = draws / 10
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi_square < 27.9  # 9 degrees of freedom: exceeded by chance once in 1,000 seeds, and the seed is fixed


def test_random_without_a_generator_is_told() -> None:
    with pytest.raises(ValueError, match="selector=random needs a generator"):
        select(RandomSelector(), noise(5), noise(1)[0], 2)


@given(LENGTHS, COUNTS, SEEDS)
def test_attention_takes_the_most_relevant(length, count, seed) -> None:
    frames, query = noise(length, seed), noise(1, seed + 1)[0]
    relevance = frames @ query
    chosen = select(AttentionSelector(), frames, query, count)
    rest = sorted(set(range(length)) - set(chosen))
    assert len(chosen) == min(count, length)
    assert not rest or float(relevance[chosen].min()) >= float(relevance[rest].max())


def test_attention_takes_the_earlier_of_equals_and_does_not_mind_repetition() -> None:
    frames = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert select(AttentionSelector(), frames, torch.tensor([1.0, 0.0]), 2) == [1, 2]
    assert select(AttentionSelector(), frames, torch.tensor([1.0, 0.0]), 4) == [0, 1, 2, 3]
    assert select(AttentionSelector(), frames.repeat(50, 1), torch.tensor([0.0, 1.0]), 5) == [0, 4, 5, 9, 10]
