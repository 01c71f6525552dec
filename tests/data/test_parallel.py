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

def main(argv, prog):
    list(in_any_order(press, [1, 2], int(argv[0])))

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell does not heed it
    cli.COMMANDS["press"] = ("pressed", "")
    sys.exit(cli.main(["press", *sys.argv[1:]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX process groups")
@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_is_one_word_and_exit_code_130(tmp_path: Path, workers: int) -> None:
    (tmp_path / "pressed.py").write_text(PRESSED)
    path = os.pathsep.join([str(Path(vilamp.__file__).parents[1]), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, tmp_path / "pressed.py", str(workers)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
