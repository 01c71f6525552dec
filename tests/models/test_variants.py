"""The two variants as configuration: each key has its effect, and every selector and merger trains under either."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from vilamp.build import build_encoder, build_model, build_selector
from vilamp.config import compose, conf_dir
from vilamp.errors import ConfigError
from vilamp.models.video_lm import VideoLM
from vilamp.samples import Batch, Question, Video

VARIANTS = ["paper", "release"]
SELECTORS = ["differential", "uniform", "random", "attention"]
MERGERS = ["differential", "uniform", "random", "attention", "none"]
PLACES = {
    "maps": "merger.maps",
    "learn_alpha": "merger.learn_alpha",
    "merge_space": "merger.space",
    "anchor": "model.anchor",
    "relevance_floor": "selector.relevance_floor",
    "fill_up": "selector.fill_up",
    "keyframe_grid": "model.projector.keyframe_grid",
    "newline": "model.projector.newline",
}
"""The setting that takes each key of a variant."""


@cache
def keys(variant: str) -> dict[str, Any]:
    return dict(OmegaConf.load(conf_dir() / "variant" / f"{variant}.yaml"))


def build(*overrides: str) -> VideoLM:
    torch.manual_seed(0)
    return build_model(compose("train", ["num_keyframes=3", "model.chunk_size=4", *overrides]))


def batch(model: VideoLM, lengths: list[int]) -> Batch:
    """A question about each of some videos of noise."""
    cfg = compose("train")
    encoded = build_encoder(cfg, model)(Question("what colour is it?", "red", "what colour"), "k/0", True, 3)
    source = torch.Generator().manual_seed(0)
    videos = [
        Video(
            f"v{n}", torch.randint(0, 256, (n, 96, 96, 3), dtype=torch.uint8, generator=source), torch.arange(n) * 1.0
        )
        for n in lengths
    ]
    return Batch(videos, [encoded] * len(videos), list(range(len(videos))))


def test_the_default_is_the_paper() -> None:
    assert compose("train").variant == keys("paper")


def test_the_variants_differ_in_every_key() -> None:
    assert keys("paper").keys() == keys("release").keys() == PLACES.keys()
    assert all(keys("paper")[key] != keys("release")[key] for key in PLACES)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_key_reaches_its_setting_and_either_can_be_overridden(variant: str) -> None:
    own, other = keys(variant), keys("release" if variant == "paper" else "paper")
    told = {key: "null" if value is None else str(value).lower() for key, value in other.items()}
    ways = {
        "as it is": (own, []),
        "by the variant's key": (other, [f"variant.{key}={value}" for key, value in told.items()]),
        "by the part's own setting": (other, [f"{PLACES[key]}={value}" for key, value in told.items()]),
    }
    for way, (expected, overrides) in ways.items():
        cfg = compose("train", ["model=vilamp_7b", f"variant={variant}", *overrides])
        found = {key: OmegaConf.select(cfg, place) for key, place in PLACES.items()}
        assert found == expected, way


@pytest.mark.parametrize("merger", MERGERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_selector_trains_with_every_merger_and_no_parameter_is_left_out(variant: str, merger: str) -> None:
    """A parameter without a gradient stops data-parallel training."""
    model = build(f"variant={variant}", f"merger={merger}")
    for selector in SELECTORS:
        cfg = compose("train", [f"variant={variant}", f"selector={selector}"])
        model.selector = build_selector(cfg.selector, model.scorer.dim)
        model.zero_grad()
        output = model(batch(model, [9, 2]))
        output.loss.backward()
        parts = ("merger.", "projector.", "language_model.")
        left_out = [name for name, p in model.named_parameters() if name.startswith(parts) and p.grad is None]
        assert left_out == [], selector
        assert torch.isfinite(output.loss)


@pytest.mark.parametrize("fill_up", ["true", "false"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_longest_video_is_counted_with_all_that_belongs_to_it(variant: str, fill_up: str) -> None:
    model = build(
        f"variant={variant}", "selector.tau=0.99", "selector.relevance_floor=null", f"selector.fill_up={fill_up}"
    )
    lengths = [1, 3, 11]
    with torch.no_grad():
        found = model(batch(model, lengths)).visual_tokens
    bounds = [model.max_visual_tokens(length) for length in lengths]
    ends = 1 if variant == "release" else 0
    assert bounds == [16 + ends, 3 * 16 + ends, 3 * 16 + 8 + ends]
    assert all(tokens <= bound for tokens, bound in zip(found, bounds, strict=True))
    if fill_up == "true":
        assert found == bounds


def test_a_video_of_which_nothing_is_a_keyframe_may_be_the_longest() -> None:
    model = build("model.projector.keyframe_grid=1", "merger=uniform")
    model.merger.tokens_per_frame = 4
    assert model.max_visual_tokens(10) == 40


def test_an_unknown_anchor_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.anchor .* must be one of preceding, by_number, got 'next'"):
        build("variant.anchor=next")
