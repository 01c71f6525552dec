"""Checkpoints: written whole or not at all, checked when they are read, with all that a run needs to go on exactly.

``last.ckpt`` is the newest, ``previous.ckpt`` the one before it, ``best.ckpt`` that of the best validation.  Each holds
what trained, the optimiser and its schedule, and under :data:`CONTINUATION` where in the data the last optimiser step
left off, the random states of every rank after it, and the validations so far.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError  # the error alone: nothing is unpickled but what weights_only allows
from typing import Any, BinaryIO

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from vilamp.data.order import Position, question_seed
from vilamp.errors import ConfigError, Preempted
from vilamp.training.preemption import Preemption
from vilamp.training.ranks import gather
from vilamp.training.restart import random_states, restore_random_states, set_counters, validate_after

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
UNFINISHED = "unfinished.tmp"
CONTINUATION = "continuation"


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when all of it is on the disk.

    The unfinished file is in the folder of the finished one, so that moving it is one step of the file system; there is
    at most one, and the next save replaces it.  What was ``last.ckpt`` becomes ``previous.ckpt``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """As the class says.

        Raises:
            OSError: the disk is full, or the folder cannot be written; what was there before is still there.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(
            path, lambda file: torch.save(checkpoint, file), path.with_name(PREVIOUS) if path.name == LAST else None
        )


def write_whole(path: Path, write: Callable[[BinaryIO], object], before: Path | None = None) -> None:
    """Write a file that takes its name once all of it is on the disk.

    Args:
        path: its name.
        write: fills it.
        before: what the file that had the name until then is called from then on; None removes that.

    Raises:
        OSError: what the disk says, also where torch hides it in an error of its own.
    """
    unfinished = path.with_name(UNFINISHED)
    try:
        with unfinished.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        unfinished.unlink(missing_ok=True)
        refused = _of_the_disk(error)
        if refused is None or refused is error:
            raise
        raise refused from error
    if before is not None and path.exists():
        path.replace(before)
    unfinished.replace(path)
    if os.name == "posix":  # else a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # or the names may be lost with the machine
        finally:
            os.close(folder)


def _of_the_disk(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def read_checkpoint(path: Path, setting: str) -> dict[str, Any]:
    """A checkpoint on the CPU; its tensors stay in the file until they are used.

    Args:
        path: the file.
        setting: that named it, for messages.

    Raises:
        ConfigError: there is no such file, it is damaged, or it is no checkpoint of a run.
    """
    if not path.is_file():
        raise ConfigError(f"{setting}={path} {'is not a file' if path.exists() else 'does not exist'}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the check sums
        checkpoint = None if damaged else torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # A file that is no checkpoint can fail in every way that a pickle, a zip archive or a tensor can.
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{setting}={path} cannot be read: {type(error).__name__}: {reason}") from error
    if damaged:
        raise ConfigError(f"{setting}={path} cannot be read: the check sum of {damaged} in it is wrong")
    if not isinstance(checkpoint, dict) or "config" not in checkpoint:
        raise ConfigError(f"{setting}={path} was not written by a training run: it holds no configuration")
    return checkpoint


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``, by validation accuracy.

    Args:
        folder: of the checkpoints.
        inherits: whether the best one of the run that goes on is there.
    """

    def __init__(self, folder: Path, inherits: bool = False) -> None:
        super().__init__(
            folder, filename=Path(BEST).stem, monitor="val/accuracy", mode="max", enable_version_counter=False,
            save_on_train_epoch_end=False,  # but with the validation, which may be made up for at another time
        )  # fmt: skip
        self.inherits = inherits

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Know the best score so far, wherever its file lay when the state was written."""
        if not self.inherits or not state_dict["best_model_path"]:
            return
        here, score = str(Path(str(self.dirpath), BEST)), state_dict["best_model_score"]
        paths = {"best_model_path": here, "kth_best_model_path": here, "best_k_models": {here: score}}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath})


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt``, and adds to every checkpoint what going on needs; going on, it restores that.

    It writes before the first batch after every ``every_n_steps`` optimiser steps, when the validation and the logs of
    that step are done, and at the end of every epoch and of the run.  After SIGTERM it writes before the next batch and
    ends the run; a validation that was under way is made up for by the run that goes on.

    Args:
        folder: of the checkpoints.
        every_n_steps: None writes at the ends only.
        preemption: hears of SIGTERM.
        keeps_best: whether the best checkpoint of the run that goes on is there; else its validations but the first,
            which came before training, are forgotten.

    Raises:
        ConfigError: ``every_n_steps`` is not positive.
    """

    def __init__(
        self, folder: Path, every_n_steps: int | None, preemption: Preemption, keeps_best: bool = False
    ) -> None:
        if every_n_steps is not None and (type(every_n_steps) is not int or every_n_steps < 1):
            raise ConfigError(
                f"checkpoint.every_n_steps must be a whole number of at least 1, or null, got {every_n_steps!r}"
            )
        self.file = folder / LAST
        self.every_n_steps = every_n_steps
        self.preemption = preemption
        self.keeps_best = keeps_best
        self.validation_due = False
        self.saved = self.step = self.batches = 0
        self.position = Position()
        self.random = random_states()
        self.restored: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the random states of the checkpoint: from here to the first batch nothing draws from them."""
        if self.restored:
            seed = question_seed(trainer.datamodule.seed, self.position.epoch, str(self.position.consumed))
            restore_random_states(self.restored, trainer.global_rank, trainer.world_size, seed)
        # Else Lightning takes every run with trainer.max_steps for one that goes on in the middle of an epoch.
        trainer.fit_loop.epoch_loop.restarting = trainer.fit_loop.epoch_loop.batch_progress.current.ready > 0
        if self.validation_due:
            validate_after(trainer, self.step)
            self.validation_due = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note where the data and the random states are after an optimiser step."""
        if trainer.global_step == self.step:
            return  # the gradients of this batch wait for more, and would not be in a checkpoint
        self.step, self.batches = trainer.global_step, trainer.fit_loop.total_batch_idx + 1
        done, epoch = batch_idx + 1, trainer.current_epoch
        whole = done >= trainer.num_training_batches
        self.position = Position(epoch + 1) if whole else trainer.datamodule.train_batches().position(epoch, done)
        self.random = random_states()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save what the step before made, and end the run where it is to."""
        if self.preemption.of_any(trainer):
            self._save(trainer)
            raise Preempted
        if self.every_n_steps is not None and self.step % self.every_n_steps == 0:
            self._save(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """End the run where it is to."""
        if self.preemption.of_any(trainer):
            if trainer.state.fn == TrainerFn.FITTING:
                self.validation_due = True
                self._save(trainer)
            raise Preempted

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if self.step == self.saved:
            return
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.file)
        self.saved = self.step

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what going on needs."""
        checkpoint[CONTINUATION] = {
            "step": self.step,
            "batches": self.batches,
            "position": tuple(self.position),
            "data": trainer.datamodule.digests(),
            "random": gather(self.random),
            "history": pl_module.history,
            "right": pl_module.right,
            "validation_due": self.validation_due,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Set data, validations and Lightning's counters to where the checkpoint stands.

        Raises:
            ConfigError: the data holds other samples.
        """
        stored = checkpoint[CONTINUATION]
        data = trainer.datamodule
        other = sorted(split for split, digest in data.digests().items() if stored["data"].get(split) != digest)
        if other:
            raise ConfigError(
                f"data.{other[0]} holds other samples than when the checkpoint of resume= was written, or in another "
                "order; give the same shards in the same order, or begin anew with resume=null"
            )
        pl_module.history[:] = stored["history"] if self.keeps_best else stored["history"][:1]
        pl_module.right = stored.get("right", {}) if self.keeps_best else {}
        self.step = self.saved = stored["step"]
        self.batches = stored["batches"]
        self.position = data.start = Position(*stored["position"])
        self.restored = stored["random"]
        self.validation_due = stored.get("validation_due", False)
        set_counters(
            checkpoint["loops"]["fit_loop"],
            self.position.epoch,
            done=data.train_batches().done,
            batches=self.batches,
            steps=self.step,
            accumulate=trainer.accumulate_grad_batches,
        )
