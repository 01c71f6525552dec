"""Runs in processes of their own that end before their time: Ctrl-C, a lost worker, and a disk that refuses."""

from __future__ import annotations

import csv
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_shards import draw_clip, write_shard

import vilamp
from vilamp.config import compose
from vilamp.disk import writing_to
from vilamp.errors import Interrupted, OutputError
from vilamp.training.interrupt import told_interrupts
from vilamp.training.run import train

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
ROOT = Path(vilamp.__file__).parents[1]
IMPATIENT = """
import multiprocessing, os, signal
from pathlib import Path
from vilamp.selectors.uniform import UniformSelector


class Impatient(UniformSelector):
    # Presses Ctrl-C, for the run and for the processes that decode, in the first step after a checkpoint.
    def forward(self, *given, **named):
        if self.training and Path(os.environ["FOLDER"], "checkpoints", "last.ckpt").exists():
            os.killpg(0, signal.SIGINT)
        return super().forward(*given, **named)


class OutOfMemory(UniformSelector):
    # Has a worker of the data killed, as the system does where memory runs out, in the first step after a checkpoint.
    def forward(self, *given, **named):
        if self.training and Path(os.environ["FOLDER"], "checkpoints", "last.ckpt").exists():
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        return super().forward(*given, **named)
"""


@pytest.fixture(autouse=True)
def ctrl_c_counts() -> Iterator[None]:
    """Also where the tests run in the background of a shell, which has what it starts there ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def small_run(folder: Path) -> list[str]:
    """The settings of a run on a few questions about one small video."""
    shards = folder.parent / "shards"
    shards.mkdir()
    asked = [{"question": "what is it?", "answer": "grey"}]
    for split in ("train", "val"):
        write_shard(shards / f"{split}.tar", [(f"{split}{i}", asked, draw_clip()) for i in range(2)])
    return ["data=shards", f"data.train={shards}/train.tar", f"data.val={shards}/val.tar", "data.num_workers=0"]


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """``python train.py`` on the small run, in a process group of its own."""
    (folder.parent / "impatient.py").write_text(IMPATIENT)
    path = os.pathsep.join([str(ROOT), str(folder.parent)])
    return subprocess.run(
        [sys.executable, ROOT / "train.py", *small_run(folder), f"hydra.run.dir={folder}", *overrides],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "FOLDER": str(folder)},
        capture_output=True,
        text=True,
        start_new_session=True,
    )


def test_ctrl_c_is_one_message_that_names_the_last_checkpoint_and_exit_code_130(tmp_path: Path) -> None:
    impatient = ["selector=uniform", "selector._target_=impatient.Impatient", "optim.lr.selector=1"]
    done = run(tmp_path / "run", *impatient, "trainer.max_epochs=100", "data.num_workers=2")
    assert done.returncode == 130, done.stderr
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert last.is_file()
    assert done.stderr == f"interrupted: the last checkpoint is {last}, what was logged is in {tmp_path / 'run'}\n"
    with (tmp_path / "run" / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len([row for row in rows if row["train/loss"]]) == 2  # of the epoch before
    runs = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 1 and b"train/loss" in runs[0].read_bytes()


def test_a_worker_that_is_killed_is_one_message_that_names_the_last_checkpoint(tmp_path: Path) -> None:
    starved = ["selector=uniform", "selector._target_=impatient.OutOfMemory", "optim.lr.selector=1"]
    done = run(tmp_path / "run", *starved, "trainer.max_epochs=100", "data.num_workers=2")
    assert done.returncode == 1, done.stderr
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert last.is_file()
    assert re.fullmatch(
        r"error: worker process \d+ of the data was killed \(SIGKILL\), most likely because the memory of the machine "
        r"ran out; lower data\.num_workers=2, data\.batch_size=1, data\.frames_in_memory=0\.25, "
        r"data\.decode_memory=4\.0; "
        rf"the last checkpoint is {last}, what was logged is in {tmp_path / 'run'}\n",
        done.stderr,
    ), done.stderr


def test_an_interrupt_says_what_remains_and_leaves_the_signal_as_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)

    def as_lightning_does() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.exit(1)

    with pytest.raises(Interrupted, match="all of it"), told_interrupts(lambda: "all of it"):
        as_lightning_does()
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(Interrupted, match="all of it"), told_interrupts(lambda: "all of it"):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(SystemExit), told_interrupts(lambda: "nothing"):
        sys.exit(3)


@pytest.mark.parametrize("blocked", ["", "train.log"])
def test_a_folder_that_cannot_be_made_is_one_message(blocked: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if blocked:
        (folder / blocked).mkdir(parents=True)
    else:
        folder.write_text("in the way")
    done = run(folder)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot write {folder / blocked}: ")
    assert done.stderr.endswith("; set paths.output_root (or hydra.run.dir) to a folder that can be written\n")
    assert done.stderr.count("\n") == 1


def train_into(folder: Path, *overrides: str) -> None:
    given = [f"paths.output_dir={folder}", "logger=csv", "trainer.max_epochs=1", *overrides]
    train(compose("train", [*small_run(folder), *given]))


def test_a_file_in_the_place_of_the_checkpoints_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    with pytest.raises(OutputError, match=rf"cannot write {tmp_path}/run/checkpoints: .*set paths\.output_root"):
        train_into(tmp_path / "run")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is as full as a disk can be")
@pytest.mark.parametrize("file", ["config.yaml", "metrics.csv"], ids=["at the start", "in the middle"])
def test_a_full_disk_is_told_with_the_settings_to_change(file: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / file).symlink_to("/dev/full")
    with pytest.raises(OutputError, match=rf"No space left on device while writing to {tmp_path}.*paths\.output_root"):
        train_into(tmp_path / "run")


def test_figures_that_find_no_room_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "metrics.json").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"cannot write .*metrics\.json: Is a directory"):
        train_into(tmp_path / "run")
    assert "val/accuracy" in capsys.readouterr().out


def test_figures_are_written_before_questions_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which can take long, and more memory than there is."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vilamp.training.run.show", stop)
    with pytest.raises(Interrupted):
        train_into(tmp_path / "run", "report=true")
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_an_error_of_another_kind_or_place_stays_what_it_is(tmp_path: Path) -> None:
    elsewhere = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/weights.safetensors")
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "gone"))
    for error in (elsewhere, gone):
        with pytest.raises(type(error)), writing_to({tmp_path: "paths.output_root"}):
            raise error
