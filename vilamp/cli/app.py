"""Runs a task under Hydra, with every mistake of the user as one message and no traceback."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser  # what hydra.main calls; it would read sys.argv itself
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from vilamp import config, disk
from vilamp.cli import INTERRUPTED
from vilamp.errors import Preempted, VilampError

Task = Callable[[DictConfig], Any]

FAILED = 1
"""The exit code after a user's error; argparse ends with 2 where the command line itself is misused."""

_FULL_ERROR = "HYDRA_FULL_ERROR"


class _Stopped(BaseException):
    """Carries a user's error past Hydra, which would print a line of its own for an Exception."""

    def __init__(self, error: VilampError) -> None:
        self.error = error


class _ToldError(VilampError):
    """The error of one point of a sweep that is on the screen already."""


def run(task: Task, config_name: str, argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Compose ``config_name`` with the overrides in ``argv`` and run the task once, or once per point of a sweep.

    Takes Hydra's own flags: ``-m``, ``--cfg job``, ``--help``, ``--info`` and so on.

    Args:
        task: gets the composed configuration; its errors of type VilampError are the user's.
        config_name: a file of ``conf/`` without its suffix.
        argv: None means ``sys.argv[1:]``.
        prog: the name of the program in usage messages.

    Returns:
        The exit code: 0, 1 where the configuration or a task failed, 130 after Ctrl-C, or 143 where SIGTERM has
        stopped a run that is to go on.
    """
    parser = get_args_parser()
    parser.prog = prog or parser.prog
    args = parser.parse_intermixed_args(argv)  # flags may stand between the settings
    if args.experimental_rerun is not None:
        parser.error("--experimental-rerun would read a pickle, which is never done; repeat the run's overrides")
    overrides = tuple(args.overrides)
    scratch = None if _first_rank() else tempfile.mkdtemp(prefix="vilamp-rank-")
    if scratch is not None:
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        args.overrides = [*overrides, *_of_another_rank(overrides, scratch)]
    version.setbase(config.HYDRA_VERSION)
    # Read when torch is imported.  Threads that spin while they wait take the cores from the processes that decode.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    job = _Job(task, scratch)
    try:
        config.register()
        with _hydra_raises():
            _run_hydra(args, parser, job, str(config.conf_dir()), config_name)
    except _Stopped as stopped:
        return report(stopped.error)
    except _ToldError:
        return FAILED
    except Preempted as stopped:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher sends another when the first of its ranks has ended
        if _first_rank():
            print(f"stopped by SIGTERM: {stopped}", file=sys.stderr)
        return Preempted.CODE
    except KeyboardInterrupt as stopped:
        if _first_rank():
            print(f"interrupted{f': {stopped}' if str(stopped) else ''}", file=sys.stderr)
        return INTERRUPTED
    except config.USER_ERRORS as error:
        if job.begun and not isinstance(error, VilampError):
            raise  # the configuration was sound: this is a fault of the program
        return report(error, config_name, overrides)
    except (OSError, ValueError) as error:
        if job.begun:
            raise
        told = _refused_folder(error)
        if told is not None:
            return report(told)
        if isinstance(error, OSError):
            raise
        parser.error(str(error))  # Hydra: flags that exclude each other
    return 0


def _first_rank() -> bool:
    """As Lightning finds out before there is a Trainer: torchrun, its own launcher and SLURM number the processes."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def _of_another_rank(overrides: Sequence[str], folder: str) -> list[str]:
    """Hydra's settings for a rank that is not the first: the time that names the run's folder is another one there.

    A folder that the user named is known, and what there is of the run in it can be read.

    Args:
        overrides: the user's.
        folder: a temporary one, for what Hydra writes.
    """
    parted = [override.partition("=") for override in overrides]
    named = [f"paths.output_dir={where}" for key, _, where in parted if key == "hydra.run.dir" and "${" not in where]
    taken = any(key == "paths.output_dir" for key, _, _ in parted)
    own = [f"hydra.run.dir='{folder}'", f"hydra.sweep.dir='{folder}'", "hydra.output_subdir=null"]
    return own if taken else [*own, *named[-1:]]


def _refused_folder(error: Exception) -> VilampError | None:
    """What the disk said when Hydra made the run's folder, or logging (which hides it) a file in it; None: neither."""
    cause = error.__cause__ if isinstance(error, ValueError) else error
    if not isinstance(cause, OSError):
        return None
    return disk.explain(cause, {Path(str(cause.filename or Path.cwd().anchor)): disk.RUN_FOLDER})


def report(error: Exception, config_name: str = "", overrides: Sequence[str] = ()) -> int:
    """Print a user's error as one message, or raise it where a traceback was asked for; returns the exit code."""
    if _traceback_wanted():
        raise error
    print(f"error: {config.explain(error, config_name, overrides)}", file=sys.stderr)
    return FAILED


class _Job:
    """The task as Hydra calls it, once per run; Hydra names it after the module of the wrapped task."""

    def __init__(self, task: Task, scratch: str | None = None) -> None:
        functools.update_wrapper(self, task)
        self.task = task
        self.scratch = scratch
        self.begun = False
        self.traceback_wanted = _traceback_wanted()  # asked here, before _hydra_raises sets the variable for Hydra

    def __call__(self, cfg: DictConfig) -> Any:
        self.begun = True
        if self.scratch is not None:
            # Hydra has its log in there by now, and writes on; a rank that is killed could not remove it later.
            shutil.rmtree(self.scratch, ignore_errors=True)
        try:
            config.register()  # a launcher of Hydra's may have brought us to another process
            config.require_complete(cfg)
            config.require_whole_numbers(cfg)
            return self.task(cfg)
        except (VilampError, MissingMandatoryValue, InterpolationResolutionError) as error:
            hydra = HydraConfig.get()
            message = config.explain(error, "", ())
            if hydra.mode != RunMode.MULTIRUN:
                raise _Stopped(message) from error
            if self.traceback_wanted:
                raise
            # The other points of the sweep still run, and Hydra keeps the first error only: this one is told now.
            point = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # an override may hold a bad ${...}
            assert isinstance(point, list)
            print(f"error in {' '.join(point)}: {message}", file=sys.stderr)
            raise _ToldError(str(message)) from error


def _traceback_wanted() -> bool:
    return "1" in (os.environ.get("VILAMP_TRACEBACK"), os.environ.get(_FULL_ERROR))


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Within this, Hydra raises what it would otherwise print in its own way."""
    before = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = before
