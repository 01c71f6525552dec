"""Files by which processes wait for each other."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

TOLD_AFTER = 10.0
"""Seconds of waiting after which it is said what for."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within this, no other process is within it with the same file, which is made; whoever comes second waits.

    The system lets go of it when a process dies.

    Raises:
        OSError: the file cannot be made.
    """
    try:
        path.touch()  # where this is refused, filelock would in some folders wait for ever
    except FileNotFoundError as error:
        if not path.parent.is_dir():
            raise
        # As /proc has it, which lets nobody make a file.
        raise PermissionError(errno.EACCES, "no file can be made in this folder", str(path)) from error
    lock = FileLock(path)
    try:
        lock.acquire(timeout=TOLD_AFTER)
    except Timeout:
        log.warning("waiting for another process, which holds %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
