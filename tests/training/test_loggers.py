"""W&B without its server: the run goes on, and is logged offline."""

from __future__ import annotations

import csv
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, main_thread
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from small_runs import small_run

from vilamp.errors import ConfigError
from vilamp.training import loggers
from vilamp.training.loggers import open_loggers
from vilamp.training.run import train

ONLINE = """
import logging, os, sys
from pathlib import Path
import wandb
from vilamp.training.console import without_remarks
from vilamp.training.loggers import open_loggers

logging.basicConfig(level=logging.WARNING)
for folder, key in (("no key", None), ("no network", "0" * 40)):
    if key is not None:
        wandb.teardown()  # it has looked at the environment before
        os.environ["WANDB_API_KEY"] = key
    with without_remarks(), open_loggers(Path(sys.argv[1], folder), "online", "some", 1, {"seed": 0}) as loggers:
        for logger in loggers:
            logger.log_metrics({"train/loss": 1.5}, step=0)
"""


KILLED = """
import itertools, logging, os, signal, sys, time
from pathlib import Path
import psutil
from vilamp.training.console import without_remarks
from vilamp.training.loggers import open_loggers

logging.basicConfig(level=logging.WARNING)
with without_remarks(), open_loggers(Path(sys.argv[1]), "offline", "some", 5, {"seed": 0}) as loggers:
    (written,) = Path(sys.argv[1]).glob("wandb/offline-run-*/*.wandb")
    for step in itertools.count():
        if sys.argv[2] == "wandb" and step == 20:
            for process in (others := psutil.Process().children(recursive=True)):
                process.kill()
            psutil.wait_procs(others)
        if sys.argv[2] == "run" and written.stat().st_size > 1000:
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[2] == "wandb" and step == 40:
            break
        for logger in loggers:
            logger.log_metrics({"train/loss": 1.5 + step}, step=step)
            logger.save()
        time.sleep(0.05)
"""


STOPPED = """
import logging, signal, sys
from pathlib import Path
import psutil, wandb
from vilamp.training import loggers
from vilamp.training.console import without_remarks

def stopping(**settings):
    for process in psutil.Process().children(recursive=True):
        process.send_signal(signal.SIGSTOP)
        print(process.pid, flush=True)
    return init(**settings)

logging.basicConfig(level=logging.WARNING)
init, wandb.init, loggers.STARTING = wandb.init, stopping, 5
with without_remarks(), loggers.open_loggers(Path(sys.argv[1]), "offline", "some", 1, {"seed": 0}) as opened:
    for logger in opened:
        logger.log_metrics({"train/loss": 1.5}, step=0)
"""


def killed(folder: Path, what: str) -> subprocess.CompletedProcess[str]:
    """Steps are logged, and among them W&B's process is killed, or the ``run`` when W&B has written something."""
    folder.mkdir()
    return subprocess.run([sys.executable, "-c", KILLED, str(folder), what], capture_output=True, text=True)


def test_a_run_goes_on_without_the_process_of_wandb_and_says_so_once(tmp_path: Path) -> None:
    done = killed(tmp_path / "run", "wandb")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WARNING:vilamp") == 1 and "W&B has ended" in done.stderr
    assert "Traceback" not in done.stderr
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 1 + 40


@pytest.mark.soak
def test_a_killed_run_leaves_what_wandb_can_sync(tmp_path: Path) -> None:
    """W&B writes to the disk every 15 seconds or so; metrics.csv has what came after."""
    done = killed(tmp_path / "run", "run")
    assert done.returncode == -signal.SIGKILL, done.stderr
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert b"train/loss" in file.read_bytes() and b"10.5" in file.read_bytes()
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) > 20


def test_online_without_network_or_key_is_an_offline_run_and_said_once(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "HOME": str(tmp_path / "home")}
    for folder in ("no key", "no network"):
        (tmp_path / folder).mkdir()
    # A process of its own, since wandb keeps a key for the whole process; without a terminal it asks for none.
    command = [sys.executable, "-c", ONLINE, str(tmp_path)]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("WARNING:vilamp")]
    assert len(told) == 2, done.stderr
    for line, folder, reason in zip(told, ("no key", "no network"), ("No API key", "CommError"), strict=True):
        assert reason in line and f"wandb sync {tmp_path}/{folder}/wandb/offline-run-*" in line
        assert "wandb login" in line and "logger.timeout=1" in line
        assert "1.5" in (tmp_path / folder / "metrics.csv").read_text()
        runs = list((tmp_path / folder / "wandb").glob("offline-run-*/*.wandb"))
        assert len(runs) == 1 and b"train/loss" in runs[0].read_bytes()


def test_a_wandb_that_fails_when_it_begins_ends_no_run_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(**_: Any) -> None:
        raise wandb.Error("its process has ended")

    monkeypatch.setattr(wandb, "setup", lambda *_: None)
    monkeypatch.setattr(wandb, "init", fails)
    with caplog.at_level(logging.WARNING, "vilamp"), open_loggers(tmp_path, "online", "some", 1, {}) as opened:
        (alone,) = opened
        alone.log_metrics({"train/loss": 1.5}, step=0)
    (told,) = caplog.messages
    assert "logged in metrics.csv alone (Error: its process has ended)" in told and "logger=csv" in told
    assert "1.5" in (tmp_path / "metrics.csv").read_text()


@pytest.mark.soak
def test_a_wandb_whose_process_is_stopped_while_it_begins_lets_the_program_end(tmp_path: Path) -> None:
    with (tmp_path / "stopped").open("w") as stopped, (tmp_path / "told").open("w") as told:
        # To files: the stopped process would keep pipes open.
        command = [sys.executable, "-c", STOPPED, str(tmp_path)]
        try:
            done = subprocess.run(command, stdout=stopped, stderr=told, timeout=100)
        finally:
            for process in (tmp_path / "stopped").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
    text = (tmp_path / "told").read_text()
    assert done.returncode == 0 and "Traceback" not in text, text
    assert text.count("WARNING:vilamp") == 1 and "TimeoutError: it has not within 6 seconds" in text
    assert "1.5" in (tmp_path / "metrics.csv").read_text()


class Hanging:
    """W&B, of which nothing returns before it is ``freed``: neither what begins it nor what tears it down."""

    def __init__(self) -> None:
        self.begins, self.ends, self.freed = Event(), Event(), Event()

    def init(self, **_: Any) -> None:
        self.begins.set()
        self.freed.wait(60)

    def teardown(self) -> None:
        self.ends.set()
        self.freed.wait()


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    all_of_it = Hanging()
    monkeypatch.setattr(wandb, "setup", lambda *_: None)
    monkeypatch.setattr(wandb, "init", all_of_it.init)
    monkeypatch.setattr(wandb, "teardown", all_of_it.teardown)
    yield all_of_it
    all_of_it.freed.set()


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_wandb_that_hangs_while_it_begins_holds_up_neither_the_run_nor_its_end(
    hanging: Hanging, mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loggers, "STARTING", 0)
    with caplog.at_level(logging.WARNING, "vilamp"), open_loggers(tmp_path, mode, "some", 0.01, {}) as opened:
        (alone,) = opened
        alone.log_metrics({"train/loss": 1.5}, step=0)
        assert hanging.begins.wait(60) and not hanging.ends.is_set()
    assert hanging.ends.wait(60) and not hanging.freed.is_set()
    (told,) = caplog.messages
    assert "metrics.csv alone (TimeoutError: it has not within 0.01 seconds" in told and "logger=csv" in told
    assert "1.5" in (tmp_path / "metrics.csv").read_text()


def test_ctrl_c_ends_the_wait_for_a_wandb_that_hangs(
    hanging: Hanging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(**_: Any) -> None:
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
        hanging.init()

    monkeypatch.setattr(wandb, "init", interrupted)
    with pytest.raises(KeyboardInterrupt), open_loggers(tmp_path, "offline", "some", 1, {}):
        pass
    assert hanging.ends.wait(60) and not hanging.freed.is_set()


def test_a_project_that_wandb_refuses_is_named(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match=r"logger\.project=a/b .*cannot contain")
    with refused, open_loggers(tmp_path, "offline", "a/b", 1, {}):
        pass


class Blocked:
    """A W&B run of which no call returns before it is ``freed``."""

    id = "1"
    settings = SimpleNamespace(sync_dir="wandb/run-1")

    def __init__(self) -> None:
        self.freed = Event()

    def log(self, *_: Any, **__: Any) -> None:
        self.freed.wait()

    finish = log


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blocked]:
    run = Blocked()
    monkeypatch.setattr(loggers, "_wandb_run", lambda *_: run)
    yield run
    run.freed.set()  # only now that everything has ended


def test_a_run_does_not_wait_for_a_wandb_that_takes_nothing(
    blocked: Blocked, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = small_run(tmp_path / "run", tmp_path / "data", "logger=wandb", "logger.timeout=0.01", "trainer.max_epochs=2")
    with caplog.at_level(logging.WARNING, "vilamp"):
        run = train(cfg)
    assert not blocked.freed.is_set()
    with (tmp_path / "run" / "metrics.csv").open() as lines:
        logged = [int(row["step"]) for row in csv.DictReader(lines) if row["train/loss"]]
    assert logged == list(range(run.trainer.global_step)) and len(logged) == 4
    (told,) = caplog.messages
    assert "logger.timeout=0.01 seconds" in told and "`wandb sync wandb/run-1` sends" in told


def test_what_waits_for_wandb_has_a_bound_and_it_is_said_once(
    blocked: Blocked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loggers, "WAITING", 3)
    with caplog.at_level(logging.WARNING, "vilamp"), open_loggers(tmp_path, "offline", "some", 0.01, {}) as both:
        for step in range(20):
            for logger in both:
                logger.log_metrics({"train/loss": 1.5}, step=step)
        wandb_logger: Any = both[1]
        assert wandb_logger._calls.qsize() == 3
    (told,) = caplog.messages
    assert "3 calls wait for it" in told
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + 20


def test_a_server_that_is_gone_at_the_end_is_waited_for_no_longer_than_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Unsent(Blocked):
        """Behaves as one whose upload does not end within ``finish_timeout``."""

        def finish(self, exit_code: int) -> None:
            raise TimeoutError("Timed out finishing run.")

    monkeypatch.setattr(loggers, "_wandb_run", lambda *_: Unsent())
    with caplog.at_level(logging.WARNING, "vilamp"), open_loggers(tmp_path, "online", "some", 3, {}):
        pass
    (told,) = caplog.messages
    assert "logger.timeout=3 seconds" in told and "`wandb sync wandb/run-1` sends what W&B has" in told


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 1e10, "soon"])
def test_a_timeout_that_cannot_be_is_named(timeout: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"logger\.timeout="), open_loggers(tmp_path, "offline", "some", timeout, {}):
        pass
