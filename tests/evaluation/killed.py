"""An evaluation that kills itself at a given point.

    python tests/evaluation/killed.py line|merge ANSWERS SHARE settings...

line: so many answers are whole, of the next one that share of its bytes.  merge: all answers are in one file, the
result is not written.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import vilamp.evaluation.run as module
from vilamp.cli.evaluate import main
from vilamp.evaluation.answers import Answer, AnswerFile
from vilamp.evaluation.writing import merge


class Killing(AnswerFile):
    """Counts down."""

    left = int(sys.argv[2])

    def _write(self, line: bytes) -> None:
        if Killing.left == 0:
            self.file.write(line[: int(float(sys.argv[3]) * len(line))])
            os.kill(os.getpid(), signal.SIGKILL)
        Killing.left -= 1
        super()._write(line)


def merge_and_die(folder: Path, answers: Iterable[Answer]) -> None:
    """As named."""
    merge(folder, answers)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1] == "line":
        module.AnswerFile = Killing  # type: ignore[misc]
    else:
        module.merge = merge_and_die  # type: ignore[assignment]
    sys.exit(main(sys.argv[4:]))
