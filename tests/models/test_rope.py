"""Positions beyond those that the language model was trained on: a setting of it, which changes no weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vilamp.build import build_model
from vilamp.config import compose
from vilamp.errors import ConfigError
from vilamp.locations import asset
from vilamp.models.language_model import LanguageModel

PATH = str(asset("tiny/language_model"))
YARN = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 320}


def test_the_long_tiny_model_differs_in_its_positions_alone() -> None:
    plain, long = (build_model(compose("train", [f"model={name}"])) for name in ("tiny", "tiny_long"))
    assert long.language_model.lm.config.rope_parameters["rope_type"] == "yarn"
    assert long.language_model.lm.config.rope_parameters["rope_theta"] == 1e6, "what is not named stays"
    assert long.language_model.context == plain.language_model.context
    weights = plain.state_dict()
    assert weights.keys() == long.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in long.state_dict().items())


@pytest.mark.parametrize("weights", [True, False])
def test_far_positions_turn_slower_and_attention_is_sharper(weights: bool) -> None:
    plain, long = (LanguageModel(PATH, rope=rope, weights=weights).lm.model.rotary_emb for rope in (None, YARN))
    ratio = plain.inv_freq / long.inv_freq
    assert ratio[0] == pytest.approx(1) and ratio[-1] == pytest.approx(32)
    assert (plain.attention_scaling, long.attention_scaling) == (1.0, pytest.approx(1.3466, abs=1e-4))


@pytest.mark.parametrize(
    "rope", [{"rope_type": "yan"}, {"rope_type": "yarn"}, YARN | {"factor": "much"}, YARN | {"factor": 0}]
)
def test_what_cannot_be_computed_names_the_setting(rope: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model\.language_model\.rope=.* cannot be used: .*; types are .*yarn"):
        LanguageModel(PATH, rope=rope)
