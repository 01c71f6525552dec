"""Work on many shards by several processes, and Ctrl-C, which reaches all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vilamp

PRESSED = """
import os, signal, sys
from vilamp import cli
from vilamp.data.packing.parallel import in_any_order

def press(job):
    os.killpg(0, signal.SIGINT)
    signal.pause()

def press_in_vain(job):
    os.killpg(0, signal.SIGINT)
    return job

def main(argv, prog):
    heeded = argv[1] == "heeded"
    # What runs in the background of a shell does not heed it, be it these tests.
    signal.signal(signal.SIGINT, signal.default_int_handler if heeded else signal.SIG_IGN)
    print(sorted(in_any_order(press if heeded else press_in_vain, [1, 2], int(argv[0]))))
    return 0

if __name__ == "__main__":
    cli.COMMANDS["press"] = ("pressed", "")
    sys.exit(cli.main(["press", *sys.argv[1:]]))
"""


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX process groups")


def _press(tmp_path: Path, workers: int, how: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "pressed.py").write_text(PRESSED)
    path = os.pathsep.join([str(Path(vilamp.__file__).parents[1]), str(tmp_path)])
    return subprocess.run(
        [sys.executable, tmp_path / "pressed.py", str(workers), how],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=120,
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_is_one_word_and_exit_code_130(tmp_path: Path, workers: int) -> None:
    done = _press(tmp_path, workers, "heeded")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_does_not_end_the_processes_of_what_is_in_the_background(tmp_path: Path, workers: int) -> None:
    done = _press(tmp_path, workers, "ignored")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[(0, 1), (1, 2)]\n", "")
