"""The comparison on a new domain: which runs it makes, and what its figures say."""

from __future__ import annotations

import json
from pathlib import Path

import domain_shift
import pytest
from domain_shift import COLUMNS, main, measure

from vilamp.build import build_optim
from vilamp.config import compose

Command = tuple[str, list[str]]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """The commands that were run, the n-th of which reached n tenths."""
    called: list[Command] = []

    def run(command: list[str], **_: object) -> None:
        script, (folder, *overrides) = Path(command[1]).name, command[2:]
        called.append((script, overrides))
        where = Path(folder.removeprefix("hydra.run.dir="))
        where.mkdir(parents=True)
        figures = {"val/accuracy": len(called) / 10, "val/accuracy_before": 0.05, "model/trained_share": 0.02}
        (where / "metrics.json").write_text(json.dumps(figures))

    monkeypatch.setattr(domain_shift.subprocess, "run", run)
    monkeypatch.setattr(domain_shift, "_size", lambda folder: 1000)
    return called


def test_each_run_is_a_command_and_is_made_once(tmp_path: Path, commands: list[Command]) -> None:
    before, lora, full = measure(tmp_path, ["trainer.max_epochs=5"], quick=False)
    assert [script for script, _ in commands] == ["train.py", "train.py", "evaluate.py", "train.py", "evaluate.py"]
    assert (before["domain"], before["old"]) == (0.05, 0.1) and before["gain_of_full"] == before["trained_share"] == 0
    assert (lora["domain"], lora["old"], full["domain"], full["old"]) == (0.2, 0.3, 0.4, 0.5)
    assert lora["gain_of_full"] == pytest.approx(0.15 / 0.35) and full["gain_of_full"] == 1
    measure(tmp_path, ["trainer.max_epochs=5"], quick=False)
    assert len(commands) == 5


def test_both_ways_differ_in_what_trains_alone(tmp_path: Path, commands: list[Command]) -> None:
    measure(tmp_path, [], quick=False)
    base, lora, full = (compose("train", overrides) for script, overrides in commands if script == "train.py")
    build_optim(full)
    assert not full.lora and (lora.lora.rank, lora.lora.vision_rank) == (1, 6)
    assert {part for part, rate in full.optim.lr.items() if rate is None} == {"scorer", "selector"}
    assert {part for part, rate in lora.optim.lr.items() if rate is not None} == {"language_model", "vision_tower"}
    for name in ("data", "trainer", "init", "selector", "merger", "seed"):
        assert lora[name] == full[name]
    assert not base.init and lora.init.path == str(tmp_path / "base")
    replayed = lora.data.mix.replay.generate
    assert (base.data.generate.look, lora.data.generate.look, replayed.look) == ("plain", "dusk", "plain")
    for script, overrides in commands:
        if script == "evaluate.py":
            assert compose("evaluate", overrides).data.generate == base.data.generate


def test_without_a_gain_there_is_no_share_of_it(tmp_path: Path, commands: list[Command]) -> None:
    measure(tmp_path, [], quick=True)
    for folder in ("lora", "full"):
        file = tmp_path / folder / "metrics.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"val/accuracy": 0.05}))
    assert [row["gain_of_full"] for row in measure(tmp_path, [], quick=True)] == [0, 0, 0]


def test_the_last_line_has_all_rows(
    tmp_path: Path, commands: list[Command], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--quick", "--json", "--out", str(tmp_path), "trainer.max_epochs=0"])
    assert all(overrides[-1] == "trainer.max_epochs=0" for script, overrides in commands if script == "train.py")
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["way"] for row in rows] == ["before", "LoRA", "full fine-tuning"]
    assert all(set(row) == {column.key for column in COLUMNS} for row in rows)
