"""The two forms of DFM: the release's equations, any order of anchors, and how little memory both passes take."""

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
from vilamp.mergers import _in_blocks
from vilamp.mergers.differential import DifferentialMerger, Maps
from vilamp.testing.kit import NoTensorAbove, nudged, seeded

FORMS: list[Maps] = ["one", "four"]


def merger_of(maps: Maps, dim: int = 6, query_dim: int = 4, alpha: float = 0.1, lambda_: float = 1.0):
    """A merger in float64 whose weights are the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nudged(DifferentialMerger(lambda_, alpha, maps, True, dim=dim, query_dim=query_dim).double())


def inputs(num_frames: int, num_anchors: int, num_patches: int = 5, dim: int = 6, query_dim: int = 4, seed: int = 0):
    """Patches, anchors, anchor_of and query in float64; a frame's anchor may be any or none, in any order."""
    generator = seeded(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    anchor_of = torch.randint(NO_ANCHOR, num_anchors, (num_frames,), generator=generator)
    return noise(num_frames, num_patches, dim), noise(num_anchors, num_patches, dim), anchor_of, noise(query_dim)


def in_small_blocks(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    for name in ("FORWARD_NUMBERS", "BACKWARD_NUMBERS"):
        monkeypatch.setattr(_in_blocks, name, numbers)


@given(st.integers(0, 6), st.integers(0, 3), st.integers(1, 5), st.floats(0, 3), st.integers(0, 10**6))
def test_four_maps_are_the_equations_of_the_release(num_frames, num_anchors, num_patches, lambda_, seed) -> None:
    merger = merger_of("four", lambda_=lambda_)
    patches, anchors, anchor_of, query = inputs(num_frames, num_anchors, num_patches, seed=seed)
    tokens = torch.zeros(num_frames, 1, 6, dtype=torch.float64)
    for n, frame in enumerate(patches):
        saliency = F.cosine_similarity(merger.patch_query_map(frame), merger.query_map(query), dim=-1)
        if anchor_of[n] != NO_ANCHOR:
            anchor = merger.anchor_map(anchors[anchor_of[n]])
            saliency = saliency - lambda_ * F.cosine_similarity(merger.patch_anchor_map(frame), anchor, dim=-1)
        tokens[n, 0] = (saliency / merger.alpha).softmax(dim=0) @ frame
    torch.testing.assert_close(merger(patches, anchors, anchor_of, query), tokens, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("maps", FORMS)
@pytest.mark.parametrize("frames_per_block", [1, 2, 100])
def test_gradients_are_those_of_the_result(maps: Maps, frames_per_block: int, monkeypatch) -> None:
    in_small_blocks(monkeypatch, frames_per_block * 3 * 3)
    merger = merger_of(maps, dim=3, query_dim=2, alpha=0.5)
    patches, anchors, _, query = inputs(5, 3, num_patches=3, dim=3, query_dim=2)
    anchor_of = torch.tensor([2, 0, NO_ANCHOR, 2, 0])  # anchor 1 is no frame's
    names = [name for name, _ in merger.named_parameters()]

    def tokens(patches: Tensor, anchors: Tensor, query: Tensor, *weights: Tensor) -> Tensor:
        named = dict(zip(names, weights, strict=True))
        called = torch.func.functional_call(merger, named, (patches, anchors, anchor_of, query))
        assert isinstance(called, Tensor)
        return called

    leaves = [patches, anchors, query, *(value.detach() for value in merger.parameters())]
    assert torch.autograd.gradcheck(tokens, [value.requires_grad_() for value in leaves])


@pytest.mark.parametrize("alpha", [0.5, -0.5])
@pytest.mark.parametrize("what", ["patches", "anchors", "query"])
def test_a_vector_without_length_spoils_no_gradient(what: str, alpha: float) -> None:
    merger = merger_of("one")
    with torch.no_grad():
        merger.alpha.fill_(alpha)
    patches, anchors, anchor_of, query = inputs(7, 3)
    anchor_of = anchor_of.clamp(min=0)
    without_length = {"patches": patches[0], "anchors": anchors[0], "query": query}[what]
    without_length.zero_()
    leaves = [value.requires_grad_() for value in (patches, anchors, query, *merger.parameters())]
    tokens = merger(patches, anchors, anchor_of, query)
    assert tokens.isfinite().all()
    tokens.square().sum().backward()
    grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(grads) == len(leaves) and all(grad.isfinite().all() for grad in grads)
    patch_grad, anchor_grad, query_grad, *_ = grads
    if what == "anchors":
        assert not anchor_grad[0].any() and anchor_grad[1:].any()
    if what == "query":
        assert not query_grad.any() and patch_grad.any()


@pytest.mark.parametrize("maps", FORMS)
def test_no_gradient_is_made_that_nobody_asks_for(maps: Maps) -> None:
    patches, anchors, anchor_of, query = inputs(7, 3)
    merger = merger_of(maps)
    merger(patches, anchors, anchor_of, query).sum().backward()
    assert patches.grad is None and anchors.grad is None
    assert all(value.grad is not None for value in merger.parameters())


@pytest.mark.parametrize("maps", FORMS)
def test_the_order_of_anchors_plays_no_part(maps: Maps, monkeypatch) -> None:
    in_small_blocks(monkeypatch, 4 * 5 * 6)
    patches, anchors, anchor_of, query = inputs(23, 5)
    merger, moved = merger_of(maps), torch.randperm(23, generator=seeded())
    want = merger(patches, anchors, anchor_of, query)
    torch.testing.assert_close(merger(patches[moved], anchors, anchor_of[moved], query), want[moved])


@pytest.mark.parametrize("maps", FORMS)
def test_a_frame_may_be_its_own_anchor(maps: Maps) -> None:
    patches, _, _, query = inputs(6, 0)
    merger = merger_of(maps)
    alone = [merger(frame[None], frame[None], torch.tensor([0]), query) for frame in patches]
    torch.testing.assert_close(merger(patches, patches, torch.arange(6), query), torch.cat(alone))


@pytest.mark.parametrize("maps", FORMS)
@pytest.mark.parametrize("anchors_are", ["few", "frames"])
def test_a_block_is_all_that_is_held_beside_inputs_and_gradients(maps: Maps, anchors_are: str, monkeypatch) -> None:
    """Also where every frame has another anchor; and nothing of the size of all patches where they need no gradient."""
    frame = 49 * 16
    in_small_blocks(monkeypatch, 4 * frame)
    patches, anchors, anchor_of, query = inputs(100, 2, num_patches=49, dim=16)
    if anchors_are == "frames":
        anchors, anchor_of = patches, torch.randperm(100, generator=seeded())
    merger = merger_of(maps, dim=16)
    with NoTensorAbove(5 * frame):
        merger(patches, anchors, anchor_of, query).sum().backward()


@pytest.mark.parametrize("maps", FORMS)
def test_the_weights_that_are_told_are_those_of_the_tokens(maps: Maps, monkeypatch) -> None:
    """Block by block too, in the memory of a block."""
    frame = 49 * 16
    in_small_blocks(monkeypatch, 4 * frame)
    given = patches, _, _, _ = inputs(100, 3, num_patches=49, dim=16)
    merger = merger_of(maps, dim=16)
    with NoTensorAbove(100 * 49):
        weights = merger.token_weights(*given)
    torch.testing.assert_close(weights @ patches, merger(*given))


def test_alpha_is_a_parameter_where_it_is_learned() -> None:
    fixed = DifferentialMerger(alpha=0.25, dim=4, query_dim=4)
    learned = DifferentialMerger(alpha=0.25, learn_alpha=True, dim=4, query_dim=4)
    assert fixed.alpha == 0.25 and "alpha" not in dict(fixed.named_parameters())
    assert dict(learned.named_parameters())["alpha"].tolist() == 0.25
    patches, anchors, anchor_of, query = inputs(5, 2, dim=4)
    torch.testing.assert_close(
        learned.double()(patches, anchors, anchor_of, query), fixed.double()(patches, anchors, anchor_of, query)
    )


def test_the_maps_have_the_widths_and_biases_of_their_form() -> None:
    shapes = {name: tuple(value.shape) for name, value in DifferentialMerger(dim=4, query_dim=7).named_parameters()}
    assert shapes == {"query_map.weight": (4, 7)}
    four = DifferentialMerger(maps="four", dim=4, query_dim=7)
    shapes = {name: tuple(value.shape) for name, value in four.named_parameters()}
    square = ("patch_query_map", "patch_anchor_map", "anchor_map")
    assert shapes == {
        "query_map.weight": (4, 7),
        "query_map.bias": (4,),
        **{f"{name}.weight": (4, 4) for name in square},
        **{f"{name}.bias": (4,) for name in square},
    }


def test_each_merger_has_its_own_space() -> None:
    assert DifferentialMerger(space="language", dim=4, query_dim=4).space == "language"
    assert DifferentialMerger(dim=4, query_dim=4).space == "vision"


@pytest.mark.parametrize(("name", "known"), [("maps", "one, four"), ("space", "vision, language")])
def test_an_unknown_form_or_space_is_told(name: str, known: str) -> None:
    with pytest.raises(ConfigError, match=rf"merger\.{name} must be one of {known}, got 5"):
        DifferentialMerger(**{name: 5}, dim=4, query_dim=4)


@pytest.mark.parametrize("maps", FORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("lambda_", [0.0, 1.0])
def test_one_number_that_is_not_finite_is_found(maps: Maps, bad: float, lambda_: float) -> None:
    """Even where its patch has no weight, or nothing else depends on it."""
    patches, anchors, anchor_of, query = inputs(9, 2)
    merger = merger_of(maps, alpha=1e-6, lambda_=lambda_)
    for place in ((0, 0, 0), (4, 3, 2), (8, 4, 5)):
        holed = patches.clone()
        holed[place] = bad
        with pytest.raises(ValueError, match="patches holds NaN or infinity"):
            merger(holed, anchors, anchor_of, query)
    with pytest.raises(ValueError, match="patches holds NaN or infinity"):
        merger(holed, anchors, anchor_of, 0 * query)
