"""What the tests of evaluations share."""

from __future__ import annotations

from pathlib import Path

import evaluating
import pytest

from vilamp.evaluation.run import Evaluation


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the tiny model, which decodes in the process that asks."""
    return evaluating.make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt", *evaluating.HERE)


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve questions about four videos."""
    return evaluating.write_questions(tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="session")
def whole(checkpoint: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """An evaluation that nobody ended."""
    return evaluating.run(checkpoint, questions, tmp_path_factory.mktemp("whole"))
