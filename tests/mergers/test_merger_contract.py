"""Every merger that ships keeps the contract, at several widths."""

from __future__ import annotations

import functools

import pytest
from omegaconf import DictConfig

from vilamp.build import build_merger
from vilamp.config import compose
from vilamp.interfaces import FrameMerger
from vilamp.locations import conf_dir
from vilamp.testing import merger_checks

YAMLS = sorted((conf_dir() / "merger").glob("*.yaml"))
WIDTHS = {
    "narrow query": merger_checks(dim=16, query_dim=8),
    "wide query": merger_checks(dim=8, query_dim=12, num_patches=5),
    "equal widths": merger_checks(dim=8, query_dim=8, num_patches=2),
}


def test_the_mergers_of_the_paper_are_found() -> None:
    assert {"differential", "uniform", "random", "attention", "none"} <= {path.stem for path in YAMLS}


CASES = [(path.stem, "paper") for path in YAMLS] + [("differential", "release")]


@functools.cache
def composed(name: str, variant: str) -> DictConfig:
    node = compose("train", [f"merger={name}", f"variant={variant}"]).merger
    assert isinstance(node, DictConfig)
    return node


@pytest.mark.parametrize(("widths", "check"), [(name, check) for name in WIDTHS for check in WIDTHS[name]], ids=str)
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_contract(name, variant, widths, check) -> None:
    node = composed(name, variant)

    def make(dim: int, query_dim: int) -> FrameMerger:
        return build_merger(node, vision_dim=dim, language_dim=dim, query_dim=query_dim)

    check(make)
