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


RELEASE = {"maps": "four", "learn_alpha": True, "space": "language"}
"""What the authors' release has otherwise than the yaml of the differential merger."""

CASES = [(path.stem, path, {}) for path in YAMLS] + [
    ("differential, release", conf_dir() / "merger" / "differential.yaml", RELEASE)
]


@pytest.mark.parametrize(("widths", "check"), [(name, check) for name in WIDTHS for check in WIDTHS[name]], ids=str)
@pytest.mark.parametrize(("path", "settings"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_contract(path, settings, widths, check) -> None:
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    node.update(settings)

    def make(dim: int, query_dim: int) -> FrameMerger:
        return build_merger(node, vision_dim=dim, language_dim=dim, query_dim=query_dim)

    check(make)
