"""What ``vilamp evaluate`` hands the configuration to."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig

import vilamp.evaluation.run
import vilamp.training.run
from vilamp.cli.evaluate import run
from vilamp.config import compose


@pytest.mark.parametrize(("overrides", "by"), [([], "training"), (["benchmark=needle"], "evaluation")])
def test_without_a_benchmark_a_checkpoint_is_validated(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], by: str
) -> None:
    called: list[tuple[str, DictConfig]] = []
    for module in (vilamp.training.run, vilamp.evaluation.run):
        name = module.__name__.split(".")[1]
        monkeypatch.setattr(module, "evaluate", lambda cfg, name=name: called.append((name, cfg)))
    cfg = compose("evaluate", ["checkpoint=some.ckpt", *overrides])
    run(cfg)
    assert called == [(by, cfg)]
