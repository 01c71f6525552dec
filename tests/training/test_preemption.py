"""SIGTERM: the run saves, ends with the code that says so, and goes on as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from driven import noted
from launch import CPU, HERE, ended, ranks_alone
from resumable import EXACT, KEYS, assert_same_end, last, settings, write_shards

from vilamp.data.order import epoch_order
from vilamp.errors import Preempted
from vilamp.training.preemption import Preemption

GRACE = 30
"""Seconds from the signal to the end."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all tests here."""
    return write_shards(tmp_path_factory.mktemp("shards"))


def ran(notes: Path, moment: str, arguments: list[str], ranks: int = 1) -> list[subprocess.CompletedProcess[str]]:
    """A run of processes without a launcher, which send themselves a signal."""
    several = ["trainer=ddp", *CPU] if ranks > 1 else []
    processes = ranks_alone(HERE / "driven.py", [str(notes), moment, *arguments, *several], ranks)
    return [ended(process) for process in processes]


def test_one_process_saves_in_a_step_and_in_a_validation_and_goes_on_alike(shards: Path, tmp_path: Path) -> None:
    (whole,) = ran(tmp_path / "all", "never", settings(shards, tmp_path / "whole", *EXACT))
    assert whole.returncode == 0, whole.stderr
    parts = [*settings(shards, tmp_path / "parts", *EXACT), "resume=auto", "checkpoint.every_n_steps=null"]
    # In the first batch of a step: the step before is what is saved.
    (first,) = ran(tmp_path / "first", "train/5/SIGTERM", parts)
    assert first.returncode == Preempted.CODE, first.stderr
    ckpt = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    assert f"stopped by SIGTERM: the last checkpoint is {ckpt}" in first.stderr and "Traceback" not in first.stderr
    assert last(tmp_path / "parts")["continuation"]["position"] == (0, 4)
    # In the validation behind the epoch: it is made up for by the next.
    (second,) = ran(tmp_path / "second", "val/2/SIGTERM", parts)
    assert second.returncode == Preempted.CODE, second.stderr
    assert last(tmp_path / "parts")["continuation"]["position"] == (1, 0)
    assert last(tmp_path / "parts")["continuation"]["validation_due"]
    (third,) = ran(tmp_path / "third", "never", parts)
    assert third.returncode == 0, third.stderr
    order = [(epoch, KEYS[number]) for epoch in (0, 1) for number in epoch_order(len(KEYS), 0, epoch)]
    assert noted(tmp_path / "all0") == order
    assert [noted(tmp_path / f"{run}0") for run in ("first", "second", "third")] == [order[:5], order[4:11], order[11:]]
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.soak
def test_two_ranks_end_together_when_one_is_told(shards: Path, tmp_path: Path) -> None:
    whole, parts = (settings(shards, tmp_path / name, *EXACT) for name in ("whole", "parts"))
    assert [done.returncode for done in ran(tmp_path / "all", "never", whole, ranks=2)] == [0, 0]
    parts += ["resume=auto", "checkpoint.every_n_steps=null"]
    stopped = ran(tmp_path / "stopped", "train/3/SIGTERM/1", parts, ranks=2)
    assert [done.returncode for done in stopped] == [Preempted.CODE] * 2, stopped[0].stderr + stopped[1].stderr
    assert last(tmp_path / "parts")["continuation"]["position"] == (0, 4)
    assert [done.returncode for done in ran(tmp_path / "rest", "never", parts, ranks=2)] == [0, 0]
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def assert_same_weights(one: Path, other: Path) -> None:
    """Within what adding up in another order may change."""
    first, second = last(one), last(other)
    assert first["global_step"] == second["global_step"] and first["state_dict"].keys() == second["state_dict"].keys()
    for name, weight in first["state_dict"].items():
        torch.testing.assert_close(weight, second["state_dict"][name], rtol=1e-6, atol=1e-6)


@pytest.mark.soak
def test_everything_of_a_job_is_told_and_its_workers_stay_until_it_has_saved(shards: Path, tmp_path: Path) -> None:
    arguments = [*settings(shards, tmp_path / "run", "trainer.max_epochs=1000", "logger=wandb"), "data.num_workers=2"]
    (process,) = ranks_alone(HERE / "driven.py", [str(tmp_path / "notes"), "never", *arguments], ranks=1)
    while not (tmp_path / "run" / "checkpoints" / "previous.ckpt").exists() and process.poll() is None:
        os.sched_yield()
    os.killpg(process.pid, signal.SIGTERM)
    done = ended(process)
    assert done.returncode == Preempted.CODE, done.stderr
    assert "Traceback" not in done.stderr
    assert last(tmp_path / "run")["global_step"] > 1
    quarantined = (tmp_path / "run" / "quarantine.jsonl").read_text()
    assert quarantined.count("\n") == 1 and KEYS[7] in quarantined, "decoding goes on until the run ends"
    runs = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 1 and b"train/loss" in runs[0].read_bytes()


def test_outside_of_training_the_run_ends_at_once_and_the_signal_is_as_before() -> None:
    before, preemption = signal.getsignal(signal.SIGTERM), Preemption()
    with pytest.raises(Preempted, match="all of it") as stopped, preemption.heeded(lambda: "all of it"):
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    elsewhere = threading.Thread(target=lambda: preemption.heeded(lambda: "").__enter__())
    elsewhere.start()  # where no handler can be set
    elsewhere.join()


@pytest.mark.soak
@pytest.mark.parametrize("told", ["both", "one"])
def test_twenty_sigterms_at_random_moments_of_two_ranks(shards: Path, tmp_path: Path, told: str) -> None:
    """All of them on one run, which saves each time, ends in time with the code, and goes on to the same weights."""
    chance = random.Random(told)
    few = [*EXACT, "trainer.max_epochs=40", "checkpoint.every_n_steps=null", "trainer=ddp", *CPU]
    whole = ran(tmp_path / "all", "never", settings(shards, tmp_path / "whole", *few), ranks=2)
    assert [done.returncode for done in whole] == [0, 0]
    arguments = [*settings(shards, tmp_path / "parts", *few), "resume=auto"]
    batches, slowest = 0, 0.0
    for moment in range(20):
        notes = tmp_path / f"notes{moment}-"
        processes = ranks_alone(HERE / "driven.py", [str(notes), "never", *arguments], ranks=2)
        while not Path(f"{notes}0").exists() and processes[0].poll() is None:
            time.sleep(0.05)
        time.sleep(chance.random())
        for process in processes if told == "both" else [chance.choice(processes)]:
            process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert [ended(process).returncode for process in processes] == [Preempted.CODE] * 2
        slowest = max(slowest, time.monotonic() - start)
        batches += len(Path(f"{notes}0").read_text().splitlines())
    rest = ran(tmp_path / "rest", "never", arguments, ranks=2)
    assert [done.returncode for done in rest] == [0, 0], "fewer signals, or a longer run"
    batches += len((tmp_path / "rest0").read_text().splitlines())
    assert batches <= len((tmp_path / "all0").read_text().splitlines()) + 20, "at most a batch is made again"
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    print(f"the slowest ended after {slowest:.1f} s")
    assert slowest < GRACE
