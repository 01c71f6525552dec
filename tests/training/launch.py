"""Starts the processes of one run, which meet over gloo on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import vilamp

ROOT = Path(vilamp.__file__).parents[1]
HERE = ROOT / "tests" / "training"
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
CPU = ["trainer.accelerator=cpu", "trainer.precision=32-true"]
"""What makes a configuration for GPUs one that runs here."""


def torchrun(script: Path, arguments: Sequence[str], ranks: int = 2, *launcher: str) -> subprocess.Popen[str]:
    """Start so many ranks of a script; with one it is the script alone.

    Args:
        script: each rank's program.
        arguments: of the script.
        ranks: how many.
        launcher: arguments of torchrun, in place of those for a run on one node.
    """
    meeting = launcher or ("--standalone", f"--nproc-per-node={ranks}")
    several = ["-m", "torch.distributed.run", *meeting] if ranks > 1 or launcher else []
    return subprocess.Popen(
        [sys.executable, *several, str(script), *arguments],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranks_alone(script: Path, arguments: Sequence[str], ranks: int) -> list[subprocess.Popen[str]]:
    """The ranks as torchrun starts them, without torchrun: each has an exit code of its own, and is ended by nobody."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    shared |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_WORLD_SIZE": "1", "GROUP_RANK": "0"}
    return [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**os.environ, **ENVIRONMENT, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for rank in range(ranks)
    ]


def ended(process: subprocess.Popen[str], seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """What became of it.  Ranks that wait for each other would do so for half an hour."""
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
