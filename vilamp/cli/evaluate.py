"""``vilamp evaluate``: measure a checkpoint on a validation set, or on a benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from vilamp.cli import app


def run(cfg: DictConfig) -> None:
    """Evaluate as the configuration says; torch is imported only now, so that ``--help`` is quick."""
    if cfg.get("benchmark") is None:
        from vilamp.training.run import evaluate
    else:
        from vilamp.evaluation.run import evaluate  # type: ignore[assignment]

    evaluate(cfg)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Compose ``conf/evaluate.yaml`` with the overrides in ``argv``, evaluate, and return the exit code."""
    return app.run(run, "evaluate", argv, prog=prog)
