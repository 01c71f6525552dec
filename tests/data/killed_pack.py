"""Runs ``vilamp pack`` and kills itself, as SIGKILL does, before the n-th step that can be seen from outside.

    python tests/data/killed_pack.py N ARGUMENTS-OF-PACK...

Prints the number of steps where it was not killed.
"""

from __future__ import annotations

import os
import signal
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vilamp.cli import pack

seen = 0


def step(action: Callable[..., Any]) -> Callable[..., Any]:
    """``action``, or the end."""

    def run(*args: Any, **kwargs: Any) -> Any:
        global seen
        seen += 1
        if seen == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return action(*args, **kwargs)

    return run


os.fsync = step(os.fsync)
Path.replace = step(Path.replace)  # type: ignore[method-assign]
Path.unlink = step(Path.unlink)  # type: ignore[method-assign]
Path.open = step(Path.open)  # type: ignore[method-assign]
tarfile.TarFile.addfile = step(tarfile.TarFile.addfile)  # type: ignore[method-assign]
tarfile.TarFile.close = step(tarfile.TarFile.close)  # type: ignore[method-assign]

code = pack.main(sys.argv[2:], prog="vilamp pack")
print(seen)
sys.exit(code)
