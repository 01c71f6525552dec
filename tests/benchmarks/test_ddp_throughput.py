"""The benchmark of DDP's throughput: what it starts, and what it makes of the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ddp_throughput
import pytest

from vilamp.config import compose


def test_two_processes_are_compared_with_one_on_the_same_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def ran(command: list[str], env: dict[str, str], **_: Any) -> None:
        assert env["OMP_NUM_THREADS"] == "1"
        started.append(command)
        settings = command[command.index("--rank") + 1 :]
        cfg = compose("train", settings)
        folder = Path(settings[0].partition("=")[2])
        folder.mkdir()
        speed = 6.0 if cfg.trainer.get("strategy") == "ddp" else 4.0
        (folder / "metrics.json").write_text(json.dumps({"throughput/videos_per_s": speed}))

    monkeypatch.setattr(ddp_throughput.subprocess, "run", ran)
    ddp_throughput.main(["--quick", "--json"], ["seed=1"])
    one, two = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert (one["of_one"], two["videos_per_s"], two["of_one"]) == (1, 3, 0.75)
    assert "--nproc-per-node=2" in started[1] and "torch.distributed.run" not in started[0]
    assert all(command[-1] == "seed=1" for command in started)
