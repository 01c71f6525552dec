"""The contract of a merger, and what makes Token Merging what it is."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor
from vilamp_tome import TokenMerging

from vilamp.config import compose
from vilamp.errors import ConfigError
from vilamp.testing import merger_checks


def merge(merger: TokenMerging, patches: Tensor, query: Tensor | None = None) -> Tensor:
    """Merge frames that have no anchor."""
    anchor_of = torch.full(patches.shape[:1], -1)
    return merger(patches, patches[:0], anchor_of, torch.zeros(3) if query is None else query)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("check", merger_checks(), ids=str)
def test_contract(check) -> None:
    check(TokenMerging)


@pytest.mark.parametrize("check", merger_checks(), ids=str)
def test_contract_with_another_number_of_tokens(check) -> None:
    check(lambda: TokenMerging(tokens_per_frame=1, share_per_round=0.5))


def test_the_yaml_builds_it() -> None:
    merger = instantiate(compose("train", ["merger=tome", "merger.tokens_per_frame=2"]).merger)
    assert isinstance(merger, TokenMerging)
    assert (merger.tokens_per_frame, merger.space) == (2, "vision")


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("num_patches", [1, 2, 3, 7, 16, 81])
def test_one_token_is_the_mean_of_all_patches(num_patches: int, share: float) -> None:
    """Means of means weighted by their sizes, so nothing counts twice."""
    patches = noise(3, num_patches, 5)
    merged = merge(TokenMerging(1, share), patches)
    torch.testing.assert_close(merged, patches.mean(dim=1, keepdim=True))


def test_as_many_tokens_as_patches_are_the_patches() -> None:
    patches = noise(2, 4, 5)
    assert torch.equal(merge(TokenMerging(4), patches), patches)


def test_patches_of_one_kind_become_one_token_in_the_order_of_the_frame() -> None:
    kinds = torch.eye(4)[[2, 0, 3, 1]]
    frame = kinds.repeat_interleave(4, dim=0)  # 16 patches: four of a kind side by side
    torch.testing.assert_close(merge(TokenMerging(4), frame[None])[0], kinds)


@pytest.mark.parametrize("place", range(16))
def test_one_patch_unlike_all_others_stays_as_it_is(place: int) -> None:
    frame = torch.tensor([1.0, 0.0, 0.0]) + 0.01 * noise(16, 3)
    frame[place] = torch.tensor([0.0, 0.0, 1.0])
    tokens = merge(TokenMerging(4), frame[None])[0]
    assert (tokens == frame[place]).all(dim=1).sum() == 1


def test_frames_do_not_mix() -> None:
    patches = noise(6, 9, 5)
    together = merge(TokenMerging(4), patches)
    for index in range(6):
        torch.testing.assert_close(merge(TokenMerging(4), patches[index : index + 1])[0], together[index])


def test_neither_question_nor_anchor_matters() -> None:
    patches, merger = noise(6, 9, 5), TokenMerging(4)
    anchored = merger(patches, noise(2, 9, 5, seed=1), torch.tensor([-1, 0, 0, 1, 1, 1]), noise(3))
    assert torch.equal(anchored, merge(merger, patches))


def test_every_patch_gets_its_share_of_the_gradient() -> None:
    patches = noise(2, 9, 5).requires_grad_()
    merge(TokenMerging(1), patches).sum().backward()
    torch.testing.assert_close(patches.grad, torch.full((2, 9, 5), 1 / 9))


def test_bfloat16_is_merged_as_float32() -> None:
    patches = noise(3, 25, 8).bfloat16()
    want = merge(TokenMerging(4), patches.float()).bfloat16()
    assert torch.equal(merge(TokenMerging(4), patches), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(merge(TokenMerging(4), patches.float()).bfloat16(), want)


def test_too_few_patches_are_told() -> None:
    with pytest.raises(ConfigError, match=r"3 patches, too few for 4 tokens; set merger\.tokens_per_frame to 3"):
        merge(TokenMerging(4), noise(2, 3, 5))


@pytest.mark.parametrize("setting", [{"tokens_per_frame": 0}, {"share_per_round": 0.0}, {"share_per_round": 0.6}])
def test_a_setting_out_of_range_is_told(setting) -> None:
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"merger\.{name} must be .*, got 0"):
        TokenMerging(**setting)
