"""``vilamp train``: one training run, or a sweep of them with ``-m``."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from vilamp.cli import app


def run(cfg: DictConfig) -> None:
    """Train as the configuration says; torch is imported only now, so that ``--help`` is quick."""
    from vilamp.training.run import train

    train(cfg)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Compose ``conf/train.yaml`` with the overrides in ``argv``, train, and return the exit code."""
    return app.run(run, "train", argv, prog=prog)
