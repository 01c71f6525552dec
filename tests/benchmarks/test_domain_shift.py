"""The comparison on a new domain: which runs it makes, and what its table says."""

from __future__ import annotations

import json
from pathlib import Path

import domain_shift
import pytest
from domain_shift import Row, main, measure, render

from vilamp.build import build_optim
from vilamp.config import compose


def test_the_table_tells_the_gain_from_both_sides() -> None:
    rows = [Row("before", 0.2, 0.95), Row("LoRA", 0.8, 0.93, 0.025, 90_000), Row("full", 0.9, 0.9, 0.6, 3_200_000)]
    lines = render(rows).splitlines()
    assert "| LoRA | 0.800 | 0.930 | 2.50% | 90 kB |" in lines
    assert "| before | 0.200 | 0.950 |  |  |" in lines
    assert lines[-1] == "LoRA gains 86% of what full fine-tuning gains."


def test_each_run_is_a_command_and_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def called(command: list[str], **_: object) -> None:
        script, (folder, *overrides) = Path(command[1]).name, command[2:]
        commands.append((script, overrides))
        where = Path(folder.removeprefix("hydra.run.dir="))
        where.mkdir(parents=True)
        figures = {"val/accuracy": len(commands) / 10, "val/accuracy_before": 0.05, "model/trained_share": 0.02}
        (where / "metrics.json").write_text(json.dumps(figures))

    monkeypatch.setattr(domain_shift.subprocess, "run", called)
    monkeypatch.setattr(domain_shift, "_size", lambda folder: 1000)
    rows = measure(tmp_path, ["logger=csv"], quick=False)
    assert [(row.name, row.domain, row.old) for row in rows] == [
        ("before", 0.05, 0.1),
        ("LoRA", 0.2, 0.3),
        ("full fine-tuning", 0.4, 0.5),
    ]
    assert [script for script, _ in commands] == ["train.py", "train.py", "evaluate.py", "train.py", "evaluate.py"]
    for script, overrides in commands:
        assert compose(script.removesuffix(".py"), overrides)
    lora, full = (compose("train", commands[i][1]) for i in (1, 3))
    assert lora.lora.rank == 4 and not full.lora
    build_optim(full)
    assert full.optim.lr.vision_tower == 1e-3 and lora.optim.lr.vision_tower is None
    assert lora.data == full.data and lora.trainer == full.trainer
    measure(tmp_path, ["logger=csv"], quick=False)
    assert len(commands) == 5


def test_it_is_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0 and "domain_shift" in capsys.readouterr().out
