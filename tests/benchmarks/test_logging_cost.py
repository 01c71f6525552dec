"""The benchmark of W&B's cost: its cases are real runs, and its figures are those of the turns that they took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import logging_cost
import pytest
from small_runs import FEW


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
def test_a_run_without_and_one_whose_wandb_dies_take_turns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    small = [f"data.generate.{setting}={value}" for setting, value in FEW.items()]
    settings = [*small, "num_keyframes=3", f"paths.data_dir={tmp_path}"]
    logging_cost.main(["--quick", "--json", *settings], names=[logging_cost.ALONE, "dead"])
    alone, dead = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    for row in (alone, dead):
        assert set(row) == {column.key for column in logging_cost.COLUMNS}
        assert row["steps"] == row["logged"] == 3
    assert (alone["ratio"], alone["told"], alone["wandb_cpu_s"], alone["begin_s"]) == (1, 0, 0, 0)
    assert (dead["told"], dead["wandb_cpu_s"]) == (1, 0), "its process is gone since the first turn"
    assert dead["ratio"] > 0 and dead["begin_s"] > 0


def test_a_ratio_is_that_of_turns_in_one_round_and_the_first_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    took = {
        # The machine is busy in the third round, which is the same for both.
        "none": [(50.0, 9.0, 0.0), (2.0, 1.0, 0.0), (8.0, 2.0, 0.0), (2.0, 1.0, 0.0)],
        "offline": [(10.0, 9.0, 9.0), (2.2, 1.1, 0.0), (8.8, 2.2, 0.3), (3.0, 1.1, 0.0)],
    }

    class Ran:
        def __init__(self, name: str, overrides: Any, turn: int, folder: Path) -> None:
            assert overrides == ["seed=1", "trainer.max_steps=8"]
            self.name, self.spent = name, list[tuple[float, float, float]]()

        def take_turn(self) -> None:
            self.spent.append(took[self.name][len(self.spent)])

        def finish(self) -> dict[str, int | float]:
            return {"logged": 8}

    monkeypatch.setattr(logging_cost, "Run", Ran)
    alone, offline = logging_cost.measure(list(took), ["seed=1"], turn=2, rounds=4, folder=tmp_path)
    assert (alone["ratio"], alone["step_s"]) == (1, 1)
    assert offline["ratio"] == pytest.approx(1.1) and offline["cpu_ratio"] == pytest.approx(1.1)
    assert (offline["low"], offline["high"]) == (pytest.approx(1.1), pytest.approx(1.5))
    assert offline["wandb_cpu_s"] == pytest.approx(0.3 / 3 / 2)


def test_the_interval_is_of_the_values_around_the_middle() -> None:
    assert logging_cost.middle([float(value) for value in range(100, 0, -1)]) == (50.5, 41, 60)


def test_a_run_that_fails_is_told_with_its_screen(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)none has ended:.*num_keyframes"):
        logging_cost.Run(logging_cost.ALONE, ["num_keyframes=0"], 1, tmp_path / "run")
