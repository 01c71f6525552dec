"""Every selector that ships keeps the contract, with its yaml as it is and with the settings that change its course."""

from __future__ import annotations

import functools

import pytest
from omegaconf import DictConfig, OmegaConf

from vilamp.build import build_selector
from vilamp.config import compose
from vilamp.interfaces import FrameSelector
from vilamp.locations import conf_dir
from vilamp.selectors.differential import DifferentialSelector
from vilamp.testing import selector_checks

YAMLS = sorted((conf_dir() / "selector").glob("*.yaml"))
VARIANTS = [{"fill_up": True}, {"relevance_floor": 0.2}, {"relevance_floor": 0.9, "fill_up": True}, {"tau": -1.0}]


def test_the_selectors_of_the_paper_are_found() -> None:
    assert {"differential", "uniform", "random", "attention"} <= {path.stem for path in YAMLS}


@functools.cache
def composed(name: str) -> DictConfig:
    node = compose("train", [f"selector={name}"]).selector
    assert isinstance(node, DictConfig)
    return node


@pytest.mark.parametrize("check", selector_checks(), ids=str)
@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_contract(path, check) -> None:
    node = composed(path.stem)

    def make(query_dim: int) -> FrameSelector:
        return build_selector(node, query_dim)

    check(make)


@pytest.mark.parametrize("check", selector_checks(), ids=str)
@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_contract_of_differential_with_other_settings(settings, check) -> None:
    check(lambda: DifferentialSelector(**settings))


def test_a_selector_with_weights_is_built_at_the_width_of_the_scorer() -> None:
    node = OmegaConf.create({"_target_": f"{__name__}.Wide"})
    assert build_selector(node, 24).query_dim == 24


class Wide(DifferentialSelector):
    def __init__(self, query_dim: int) -> None:
        super().__init__()
        self.query_dim = query_dim
