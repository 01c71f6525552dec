"""The comparison of predictions with real runs: both are of the same run, and a wrong prediction is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import memory_prediction
import pytest
from harness import Row

from vilamp.memory.report import predict


@pytest.mark.parametrize("run", memory_prediction.RUNS)
def test_what_is_run_is_what_is_predicted(run: str, tmp_path: Path) -> None:
    cfg = memory_prediction.settings(tmp_path, run, "quick", 40)
    model = memory_prediction.run_for_real(cfg)
    prediction = predict(cfg)
    lengths: list[int] = []
    model.language_model.lm.model.register_forward_pre_hook(
        lambda module, positional, named: lengths.append(named["inputs_embeds"].shape[1]), with_kwargs=True
    )
    batch = memory_prediction.batch_of(cfg)
    if run == "infer":
        model.generate(batch, 1, 0)
    else:
        model(batch)
    assert lengths == [prediction.sequence]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert prediction.parts["weights"] * 2**30 == pytest.approx(weights)
    assert prediction.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_last_line_has_every_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    def grown(script: str, *names: Any) -> float:
        memory_prediction.grow(tmp_path, *names)  # runs; what it grows by is honest in a process of its own only
        return 100.0

    monkeypatch.setattr(memory_prediction, "extra_mib", grown)
    assert memory_prediction.main(["--quick", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["run"] for row in rows] == list(memory_prediction.RUNS)
    for row in rows:
        assert set(row) == {column.key for column in memory_prediction.COLUMNS}
        assert row["error"] == pytest.approx(row["predicted_mib"] / row["measured_mib"] - 1)


@pytest.mark.parametrize(("error", "code"), [(0.14, 0), (-0.14, 0), (0.16, 1), (-0.16, 1)])
def test_a_wrong_prediction_of_one_point_is_a_failure(error: float, code: int) -> None:
    def measured(run: str, model: str, frames: int) -> Row:
        wrong = (run, model, frames) == ("lora", "large", 256)
        numbers = {"parameters": 1, "frames": frames, "tokens": 1, "predicted_mib": 1.0, "measured_mib": 1.0}
        return {"run": run, "model": model, **numbers, "error": error if wrong else 0.01}

    assert memory_prediction.main([], measured) == code
