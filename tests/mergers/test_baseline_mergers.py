"""What the baselines are: the mean, a lot, a learned pool, and nothing at all."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vilamp.errors import ConfigError
from vilamp.interfaces import NO_ANCHOR, FrameMerger
from vilamp.mergers.attention import AttentionMerger
from vilamp.mergers.none import NoneMerger
from vilamp.mergers.random import RandomMerger
from vilamp.mergers.uniform import UniformMerger
from vilamp.testing.kit import seeded

DIM, QUERY_DIM = 8, 5
SHAPES = st.tuples(st.integers(0, 9), st.integers(1, 12), st.just(DIM))
SEEDS = st.integers(0, 10**6)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def merge(
    merger: FrameMerger, patches: Tensor, query: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Merge frames that have no anchor."""
    anchor_of = torch.full(patches.shape[:1], NO_ANCHOR)
    query = noise(QUERY_DIM) if query is None else query
    return merger(patches, patches[:0], anchor_of, query, generator=generator)


@given(SHAPES, SEEDS)
def test_uniform_is_the_mean(shape, seed) -> None:
    patches = noise(*shape, seed=seed)
    want = patches.double().mean(dim=1, keepdim=True).float()
    torch.testing.assert_close(merge(UniformMerger(), patches), want)


@given(SHAPES, SEEDS)
def test_random_is_exactly_one_patch_of_the_frame(shape, seed) -> None:
    patches = noise(*shape, seed=seed)
    tokens = merge(RandomMerger(), patches, generator=seeded(seed))
    assert bool((tokens == patches).all(dim=-1).any(dim=1).all())


def test_random_draws_every_patch_equally_often() -> None:
    num_frames, num_patches = 7000, 7
    patches = torch.arange(num_patches).float()[None, :, None].expand(num_frames, -1, 2)
    seen = Counter(merge(RandomMerger(), patches, generator=seeded())[:, 0, 0].tolist())
    expected = num_frames / num_patches
    assert set(seen) == set(range(num_patches))
    # 6 degrees of freedom: exceeded by chance once in 1,000 seeds, and the seed is fixed.
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 22.5


def test_random_frames_do_not_share_their_lot() -> None:
    patches = noise(1, 12, DIM).expand(30, -1, -1)
    assert len(merge(RandomMerger(), patches, generator=seeded())[:, 0].unique(dim=0)) > 5


def test_random_without_a_generator_is_told() -> None:
    with pytest.raises(ValueError, match="merger=random needs a generator"):
        merge(RandomMerger(), noise(2, 3, DIM))


def test_none_has_no_tokens() -> None:
    assert NoneMerger.tokens_per_frame == 0
    assert merge(NoneMerger(), noise(4, 3, DIM)).shape == (4, 0, DIM)


def attention(num_heads: int = 2) -> AttentionMerger:
    """The pool from the same start every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AttentionMerger(num_heads, dim=DIM, query_dim=QUERY_DIM)


def test_attention_starts_as_a_weighted_mean() -> None:
    patches = noise(5, 12, DIM)
    merger = attention()
    latent = merger.latent + merger.query_map(noise(QUERY_DIM))
    pooled = (merge(merger, patches) - latent)[:, 0].detach()
    assert bool((pooled <= patches.amax(dim=1)).all()) and bool((pooled >= patches.amin(dim=1)).all())


def test_attention_is_softmax_attention_of_one_latent() -> None:
    """Head by head, as it is written in any textbook."""
    merger, patches, query = attention(num_heads=2), noise(3, 12, DIM), noise(QUERY_DIM)
    latent = merger.latent + merger.query_map(query)
    asked = merger.to_query(merger.latent_norm(latent))
    keys, values = merger.to_key(merger.patch_norm(patches)), merger.to_value(patches)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = (keys[:, :, head] @ asked[head] / 4**0.5).softmax(dim=1)
        heads.append((weights[:, :, None] * values[:, :, head]).sum(dim=1))
    torch.testing.assert_close(merge(merger, patches, query), (latent + torch.cat(heads, dim=-1))[:, None])


def test_attention_knows_the_question_and_not_the_order_of_the_patches() -> None:
    merger, patches = attention(), noise(3, 12, DIM)
    want = merge(merger, patches)
    torch.testing.assert_close(merge(merger, patches.flip(1)), want)
    assert not torch.allclose(merge(merger, patches, noise(QUERY_DIM, seed=1)), want)


@pytest.mark.parametrize("num_heads", [0, 3, -1])
def test_heads_that_do_not_divide_the_width_are_told(num_heads: int) -> None:
    with pytest.raises(ConfigError, match=rf"merger\.num_heads must divide the patches' width 8, got {num_heads}"):
        AttentionMerger(num_heads, dim=DIM, query_dim=QUERY_DIM)


@pytest.mark.parametrize(
    "merger", [UniformMerger(), RandomMerger(), NoneMerger()], ids=lambda merger: type(merger).__name__
)
def test_tokens_are_the_patches_by_the_weights_that_are_told(merger: FrameMerger) -> None:
    patches, anchor_of = noise(6, 5, DIM), torch.full((6,), NO_ANCHOR)
    given = (patches, noise(0, 5, DIM), anchor_of, noise(QUERY_DIM))
    weights = merger.token_weights(*given, generator=seeded(3))
    assert weights is not None
    torch.testing.assert_close(weights @ patches, merger(*given, generator=seeded(3)))


def test_attention_tells_the_mean_over_its_heads() -> None:
    merger, patches, query = attention(num_heads=2), noise(3, 12, DIM), noise(QUERY_DIM)
    asked = merger.to_query(merger.latent_norm(merger.latent + merger.query_map(query)))
    keys = merger.to_key(merger.patch_norm(patches))
    halves = [(keys[:, :, half] @ asked[half] / 4**0.5).softmax(dim=1) for half in (slice(0, 4), slice(4, 8))]
    told = merger.token_weights(patches, noise(0, 12, DIM), torch.full((3,), NO_ANCHOR), query)
    torch.testing.assert_close(told, sum(halves)[:, None] / 2)
