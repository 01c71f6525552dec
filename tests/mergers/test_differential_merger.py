"""DFM against Eq. 5-7 and 9-10 of the paper as they are written there, one frame and one patch after another."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from vilamp.errors import ConfigError
from vilamp.interfaces import NO_ANCHOR
from vilamp.mergers.differential import DifferentialMerger
from vilamp.testing.kit import NoTensorAbove, seeded

SIZES = st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


def inputs(
    num_frames: int = 5, num_anchors: int = 2, num_patches: int = 9, dim: int = 6, query_dim: int = 6, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Patches, anchors, anchor_of and query in float64; a frame's anchor may be any or none."""
    generator = seeded(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    anchor_of = torch.randint(NO_ANCHOR, num_anchors, (num_frames,), generator=generator)
    return noise(num_frames, num_patches, dim), noise(num_anchors, num_patches, dim), anchor_of, noise(query_dim)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def reference(merger: DifferentialMerger, patches: Tensor, anchors: Tensor, anchor_of: Tensor, query: Tensor) -> Tensor:
    tokens = torch.zeros(len(patches), 1, patches.shape[2], dtype=patches.dtype)
    mapped = merger.query_map.weight.detach() @ query
    for n, frame in enumerate(patches):
        exponentials = []
        for m, patch in enumerate(frame):
            relevance = cosine(patch, mapped)  # Eq. 6
            anchor = int(anchor_of[n])
            redundancy = 0.0 if anchor == NO_ANCHOR else cosine(patch, anchors[anchor, m])  # Eq. 7
            saliency = relevance - merger.lambda_ * redundancy  # Eq. 5
            exponentials.append(math.exp(saliency / merger.alpha))
        for m, patch in enumerate(frame):
            tokens[n, 0] += exponentials[m] / sum(exponentials) * patch  # Eq. 9, 10
    return tokens


def fresh(lambda_: float = 1.0, alpha: float = 0.01, dim: int = 6, query_dim: int = 6) -> DifferentialMerger:
    """A merger in float64 whose map of the query is the same every time."""
    merger = DifferentialMerger(lambda_, alpha, dim=dim, query_dim=query_dim).double()
    with torch.no_grad():
        merger.query_map.weight.copy_(torch.randn(dim, query_dim, generator=seeded(1)))
    return merger


@given(SIZES, st.floats(0, 3), st.floats(0.01, 10), st.integers(0, 10**6))
def test_it_is_the_equations_of_the_paper(sizes, lambda_, alpha, seed) -> None:
    merger, given = fresh(lambda_, alpha, *sizes[3:]), inputs(*sizes, seed=seed)
    torch.testing.assert_close(merger(*given), reference(merger, *given), rtol=1e-8, atol=1e-8)


@given(st.floats(0, 3), st.floats(0.01, 10), st.integers(0, 10**6))
def test_a_token_lies_between_the_patches_of_its_frame(lambda_, alpha, seed) -> None:
    patches, *rest = inputs(seed=seed)
    tokens = fresh(lambda_, alpha)(patches, *rest)[:, 0]
    assert bool((tokens <= patches.amax(dim=1) + 1e-12).all()) and bool((tokens >= patches.amin(dim=1) - 1e-12).all())


def test_weights_sum_to_one() -> None:
    patches, *rest = inputs()
    patches[:, :, -1] = 7.0
    assert fresh()(patches, *rest)[:, 0, -1].tolist() == pytest.approx([7.0] * 5)


def test_without_lambda_anchors_play_no_part() -> None:
    patches, anchors, anchor_of, query = inputs()
    none = torch.full_like(anchor_of, NO_ANCHOR)
    assert torch.equal(fresh(lambda_=0.0)(patches, anchors, anchor_of, query), fresh()(patches, anchors, none, query))


def test_where_no_keyframe_precedes_redundancy_is_zero() -> None:
    """Relevance alone weighs the patches: the same as beside an anchor that is at right angles to all of them."""
    patches, _, _, query = inputs(num_anchors=1)
    patches[:, :, 0] = 0
    across = torch.zeros(1, 9, 6, dtype=torch.float64)
    across[:, :, 0] = 1
    first, none = torch.zeros(5, dtype=torch.int64), torch.full((5,), NO_ANCHOR)
    merger = fresh()
    torch.testing.assert_close(merger(patches, across, first, query), merger(patches, across, none, query))


def test_an_alpha_towards_zero_picks_the_most_salient_patch() -> None:
    patches, anchors, anchor_of, query = inputs()
    merger = fresh(alpha=1e-9)
    relevance = F.cosine_similarity(patches, merger.query_map(query), dim=-1)
    redundancy = F.cosine_similarity(patches, anchors[anchor_of], dim=-1)
    redundancy[anchor_of == NO_ANCHOR] = 0
    best = (relevance - redundancy).argmax(dim=1)
    torch.testing.assert_close(merger(patches, anchors, anchor_of, query)[:, 0], patches[torch.arange(5), best])


def test_a_large_alpha_is_the_plain_mean() -> None:
    patches, *rest = inputs()
    torch.testing.assert_close(fresh(alpha=1e12)(patches, *rest), patches.mean(dim=1, keepdim=True))


def test_what_is_new_wins_over_what_the_keyframe_shows() -> None:
    query = torch.ones(4)
    patches = torch.eye(4)[None]  # four patches, equally relevant
    anchors = patches.clone()
    anchors[0, 2] = torch.tensor([1.0, 0, 0, 0])  # the keyframe shows something else in the third place
    token = DifferentialMerger(dim=4, query_dim=4)(patches, anchors, torch.tensor([0]), query)
    torch.testing.assert_close(token[0, 0], torch.eye(4)[2])


def test_patches_are_compared_with_the_same_place_of_the_anchor() -> None:
    patches, anchors, anchor_of, query = inputs(num_anchors=1)
    anchor_of = torch.zeros_like(anchor_of)
    moved = torch.randperm(9, generator=seeded())
    want = fresh()(patches, anchors, anchor_of, query)
    torch.testing.assert_close(fresh()(patches[:, moved], anchors[:, moved], anchor_of, query), want)
    assert not torch.allclose(fresh()(patches[:, moved], anchors, anchor_of, query), want)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_length_of_query_and_anchors_plays_no_part(scale: float) -> None:
    patches, anchors, anchor_of, query = inputs()
    want = fresh()(patches, anchors, anchor_of, query)
    torch.testing.assert_close(fresh()(patches, anchors * scale, anchor_of, query * scale), want)
    torch.testing.assert_close(fresh()(patches * scale, anchors, anchor_of, query), want * scale)


def test_a_patch_without_length_is_neither_relevant_nor_redundant() -> None:
    patches, anchors, anchor_of, query = inputs(num_anchors=1)
    anchor_of = torch.zeros_like(anchor_of)
    patches[:, 4] = 1e-12
    saliency = F.cosine_similarity(patches, fresh().query_map(query), dim=-1)
    saliency -= F.cosine_similarity(patches, anchors, dim=-1)
    saliency[:, 4] = 0
    want = ((saliency / 0.5).softmax(dim=1)[:, :, None] * patches).sum(dim=1, keepdim=True)
    torch.testing.assert_close(fresh(alpha=0.5)(patches, anchors, anchor_of, query), want)


def test_gradients_are_those_of_the_equations() -> None:
    patches, anchors, anchor_of, query = inputs(num_frames=3, num_patches=4, dim=3, query_dim=2)
    merger = fresh(alpha=0.5, dim=3, query_dim=2)

    def tokens(patches: Tensor, anchors: Tensor, query: Tensor, weight: Tensor) -> Tensor:
        called = torch.func.functional_call(merger, {"query_map.weight": weight}, (patches, anchors, anchor_of, query))
        assert isinstance(called, Tensor)
        return called

    weight = merger.query_map.weight.detach()
    assert torch.autograd.gradcheck(tokens, [value.requires_grad_() for value in (patches, anchors, query, weight)])


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_chunks_give_what_the_whole_gives(chunk: int) -> None:
    patches, anchors, anchor_of, query = inputs(num_frames=7)
    merger = fresh()
    starts = range(0, 7, chunk)
    parts = [merger(patches[i : i + chunk], anchors, anchor_of[i : i + chunk], query) for i in starts]
    torch.testing.assert_close(torch.cat(parts), merger(patches, anchors, anchor_of, query))


def test_rounding_of_low_precision_stays_outside_the_softmax() -> None:
    """A bfloat16 cosine is a hundredth off, as much as alpha; so bfloat16 patches are compared in float32."""
    patches, anchors, anchor_of, query = (
        value.bfloat16() if value.is_floating_point() else value for value in inputs(num_frames=50, num_patches=49)
    )
    merger = DifferentialMerger(dim=6, query_dim=6)
    full = merger(patches.float(), anchors.float(), anchor_of, query.float())
    assert torch.equal(merger(patches, anchors, anchor_of, query), full.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(merger(patches.float(), anchors.float(), anchor_of, query.float()), full)


def test_anchors_are_never_repeated_for_every_frame() -> None:
    """Beside the patches nothing of their size is made, however many frames share an anchor."""
    patches, anchors, _, query = inputs(num_frames=100, num_anchors=2, num_patches=49, dim=64)
    anchor_of = torch.arange(100) // 50
    merger = fresh(dim=64)
    with NoTensorAbove(patches.numel() // 4):
        merger(patches, anchors, anchor_of, query)


def test_the_query_map_starts_as_a_rotation() -> None:
    assert torch.equal(DifferentialMerger(dim=5, query_dim=5).query_map.weight, torch.eye(5))
    wide, narrow = (DifferentialMerger(dim=dim, query_dim=query_dim) for dim, query_dim in ((3, 7), (7, 3)))
    torch.testing.assert_close(wide.query_map.weight @ wide.query_map.weight.T, torch.eye(3))
    torch.testing.assert_close(narrow.query_map.weight.T @ narrow.query_map.weight, torch.eye(3))


@pytest.mark.parametrize(
    "setting", [{"lambda_": -0.1}, {"lambda_": math.nan}, {"alpha": 0.0}, {"alpha": -1.0}, {"alpha": math.inf}], ids=str
)
def test_a_setting_out_of_range_is_told(setting) -> None:
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"merger\.{name} must be a number >"):
        DifferentialMerger(**setting, dim=4, query_dim=4)
