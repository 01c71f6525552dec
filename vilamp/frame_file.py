"""Frames of a long video in a file instead of in memory: written chunk by chunk, and read chunk by chunk.

The file has no name.  So it is gone with the last process that has it open, however that one ends.  It is read and not
mapped: what was read and let go takes no memory of a process, and the system's own copies of the file's pages are given
up where memory is wanted.  Writing needs no torch.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # the process that decodes goes without torch
    from torch import Tensor

_OPEN: weakref.WeakSet[FrameFile] = weakref.WeakSet()


class FrameFile:
    """uint8[N, size, size, 3] on a disk.  Indexed as a tensor is, it gives tensors in memory, new ones each time.

    Pickled, it may go to one other process, which then has the same file open (through :mod:`multiprocessing` only).

    Args:
        descriptor: of a file that can be read and written; belongs to this object from now on.
        count: N.
        size: height and width.
    """

    def __init__(self, descriptor: int, count: int, size: int) -> None:
        self.descriptor = descriptor
        self.shape = (count, size, size, 3)
        self._close = weakref.finalize(self, os.close, descriptor)
        _OPEN.add(self)

    @classmethod
    def make(cls, folder: Path, count: int, size: int) -> FrameFile:
        """An empty one.

        Raises:
            OSError: the folder cannot be written.
        """
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            return cls(os.dup(file.fileno()), count, size)

    def __len__(self) -> int:
        return self.shape[0]

    def __setitem__(self, place: slice, frames: np.ndarray) -> None:
        """Write frames, uint8[n, size, size, 3], from ``place.start`` on.

        Raises:
            OSError: the disk takes no more.
        """
        rest, offset = np.ascontiguousarray(frames).reshape(-1).data, place.start * self._bytes
        while rest:
            written = os.pwrite(self.descriptor, rest, offset)
            rest, offset = rest[written:], offset + written

    def __getitem__(self, which: int | slice | Tensor) -> Tensor:
        """uint8[size, size, 3] of one frame, uint8[n, size, size, 3] of a slice or of numbers int64[n]."""
        import torch

        if isinstance(which, int | np.integer):
            return self[which : which + 1 or None][0]
        numbers: Sequence[int] = range(len(self))[which] if isinstance(which, slice) else which.tolist()
        frames = np.empty((len(numbers), *self.shape[1:]), dtype=np.uint8)
        if isinstance(numbers, range) and numbers.step == 1:
            self._read(frames, numbers.start)
        else:
            for place, number in enumerate(numbers):
                self._read(frames[place], number)
        return torch.from_numpy(frames)

    @property
    def _bytes(self) -> int:
        """Of a frame."""
        return 3 * self.shape[1] * self.shape[2]

    def _read(self, into: np.ndarray, first: int) -> None:
        rest, offset = into.reshape(-1).data, first * self._bytes
        while rest:
            read = os.preadv(self.descriptor, [rest], offset)
            if not read:
                raise EOFError(f"frame {offset // self._bytes} of {len(self)} was not written")
            rest, offset = rest[read:], offset + read

    def head(self, count: int) -> FrameFile:
        """The first ``count`` frames, in the same file."""
        return FrameFile(os.dup(self.descriptor), count, self.shape[1])

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd

        return _received, (DupFd(self.descriptor), len(self), self.shape[1])


def _received(handle: Any, count: int, size: int) -> FrameFile:
    return FrameFile(handle.detach(), count, size)


def can_keep_frames_in_files() -> bool:
    """Whether this system reads and writes at any place of a file, and hands open files to other processes."""
    return hasattr(os, "preadv") and hasattr(os, "pwrite")


def _close_inherited() -> None:
    """A worker that is forked has no use for the files that are open then, and they would take room until it ends."""
    for file in list(_OPEN):
        file._close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
