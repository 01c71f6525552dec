"""Where a video from a server and the frames of any are put: into memory, or into a file where they are too large."""

from __future__ import annotations

import logging
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vilamp.disk import writing_to
from vilamp.errors import ConfigError
from vilamp.frame_file import FrameFile, can_keep_frames_in_files
from vilamp.probe import FileRange

log = logging.getLogger(__name__)

SETTING = "data.frames_dir"
IN_MEMORY_GIB = 0.25
"""Ten minutes at one frame a second and 384 pixels."""
_OPEN_FILES = Path("/proc/self/fd")
"""How a process names a file that it has open and that has no other name; Linux has it."""


@dataclass(frozen=True)
class Spool:
    """Decides where the frames of a video are put, and the video itself where it comes from a server.

    Attributes:
        gib: how many GiB of frames one video may have in memory; those of a larger one are in a file.  Likewise of a
            video that a server sends.  None: no limit.
        folder: of these files, which have no name there; None takes :func:`default_folder`.

    Raises:
        ConfigError: ``gib`` is negative.
    """

    gib: float | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.gib is not None and not self.gib >= 0:
            raise ConfigError(f"data.frames_in_memory must be at least 0 GiB, or null for no limit, got {self.gib}")
        if self.gib is not None and not can_keep_frames_in_files():
            log.warning("data.frames_in_memory has no effect: this system lacks what frames in files need")
            object.__setattr__(self, "gib", None)

    def file_for(self, count: int, size: int) -> FrameFile | None:
        """A file for ``count`` frames, None where they are to be in memory; call it within :meth:`told`."""
        if not self._exceeded(count * 3 * size * size):
            return None
        self._where.mkdir(parents=True, exist_ok=True)
        return FrameFile.make(self._where, count, size)

    def room_for(self, count: int, size: int) -> np.ndarray | FrameFile:
        """uint8[count, size, size, 3], to be filled; call it within :meth:`told`."""
        file = self.file_for(count, size)
        return np.empty((count, size, size, 3), dtype=np.uint8) if file is None else file

    def keeps_in_file(self, size: int) -> bool:
        """Whether a video of so many bytes that a server sends is to be in a file, by :meth:`keep`."""
        return self._exceeded(size) and _OPEN_FILES.is_dir()

    def keep(self, pieces: Iterable[bytes]) -> FileRange:
        """A file of these bytes, which has no name and is there as long as what is returned; for this process alone.

        Raises:
            OutputError: as within :meth:`told`.
        """
        with self.told():
            self._where.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._where) as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                size, descriptor = file.tell(), os.dup(file.fileno())
        kept = FileRange(str(_OPEN_FILES / str(descriptor)), 0, size)
        weakref.finalize(kept, os.close, descriptor)
        return kept

    def _exceeded(self, size: int) -> bool:
        return self.gib is not None and size > self.gib * 2**30

    @contextmanager
    def told(self) -> Iterator[None]:
        """Within this, a disk that does not take the frames is told in one message.

        Raises:
            OutputError: it is full, or the folder cannot be written.
        """
        with writing_to({self._where: SETTING}):
            yield

    @property
    def _where(self) -> Path:
        return default_folder() if self.folder is None else Path(self.folder).absolute()


def default_folder() -> Path:
    """What TMPDIR names, else ``/var/tmp``: unlike ``/tmp`` it is on a disk, on every system that has it."""
    named, lasting = os.environ.get("TMPDIR"), Path("/var/tmp")
    if named is None and os.access(lasting, os.W_OK):
        return lasting
    return Path(tempfile.gettempdir())
