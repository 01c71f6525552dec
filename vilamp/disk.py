"""What a disk can refuse, as errors that a user can mend.

The standard library only: the command line makes a run's folder before it needs torch.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vilamp.errors import OutputError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What says that there is no room."""
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG}

RUN_FOLDER = "paths.output_root (or hydra.run.dir)"
"""The settings that say where a run writes."""


def open_plain(path: Path | str) -> BinaryIO:
    """A file, open to be read; unlike ``open`` it neither waits for ever (a fifo) nor gives what has no end (a device).

    Raises:
        OSError: it cannot be read, or it is no plain file, nor a link to one.
    """
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "It is no plain file", str(path))
    return os.fdopen(descriptor, "rb")


def partial_of(path: Path) -> Path:
    """Where a file or a folder is made that takes its name when it is whole."""
    return path.with_name(f"{path.name}.partial")


@contextmanager
def writing_to(folders: Mapping[Path, str]) -> Iterator[None]:
    """Within this, a full disk and a folder that cannot be written are the user's to mend; other errors stay.

    Args:
        folders: folder (or file) that is written to -> the setting that names it.

    Raises:
        OutputError: in place of such an OSError.
    """
    try:
        yield
    except OSError as error:
        told = explain(error, folders)
        if told is None:
            raise
        raise told from error


def explain(error: OSError, folders: Mapping[Path, str]) -> OutputError | None:
    """The error in the user's words, None where it is about neither a full disk nor one of the folders."""
    name = error.filename2 or error.filename  # where something was renamed, what it should be called
    file = None if name is None else Path(str(name)).absolute()
    settings = [setting for folder, setting in folders.items() if file is not None and _related(file, folder)]
    if error.errno in FULL:
        where = file or ", ".join(map(str, folders))
        wanted = " or ".join(dict.fromkeys(settings or folders.values()))
        return OutputError(
            f"{error.strerror} while writing to {where}; make room there, or set {wanted} to a folder on another disk "
            f"(files on their way are in {tempfile.gettempdir()}, which TMPDIR sets)"
        )
    # A file that is missing in a folder is no refusal, a folder that cannot be made is one (/proc has no other word).
    unmade = error.errno == errno.ENOENT and any(_holds(file, folder) for folder in folders)
    if unmade or (error.errno in _REFUSED and settings):
        return OutputError(f"cannot write {file}: {error.strerror}; set {settings[0]} to a folder that can be written")
    return None


def _related(file: Path, folder: Path) -> bool:
    """Whether the file is in the folder, or is one of those that the folder is in."""
    return file.is_relative_to(folder.absolute()) or _holds(file, folder)


def _holds(file: Path | None, folder: Path) -> bool:
    """Whether the file is the folder, or is one of those that the folder is in."""
    return file is not None and folder.absolute().is_relative_to(file)
