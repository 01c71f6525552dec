"""Every merger that ships keeps the contract, at several widths."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf

from vilamp.build import build_merger
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


@pytest.mark.parametrize(("widths", "check"), [(name, check) for name in WIDTHS for check in WIDTHS[name]], ids=str)
@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_contract(path, widths, check) -> None:
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)

    def make(dim: int, query_dim: int) -> FrameMerger:
        return build_merger(node, vision_dim=dim, language_dim=dim, query_dim=query_dim)

    check(make)
