"""What a video decoder is.  Needs no torch, so that the process that decodes starts at once and stays small."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vilamp.probe import DecodeError, Probe, Source, probe_video

CHUNK = 64
"""At most so many frames are handed on at once; an hour in one piece takes gigabytes."""


class UnsuitedError(DecodeError):
    """The decoder is known to read this video wrongly; another should."""

    def __init__(self, cause: str) -> None:
        super().__init__("unsuited", cause)


@dataclass(frozen=True)
class FrameChunk:
    """Some frames, in temporal order.

    Attributes:
        frames: uint8[c, size, size, 3], RGB, 1 <= c <= :data:`CHUNK`.
        asked: float64[c], the times that were asked for, in seconds from the first frame.
        got: float64[c], when the frames that are here came on display; ``got <= asked``.
        ok: bool[c].  False: the frame that was asked for cannot be decoded.  In its place stands the last good one,
            black where there was none, and ``got`` is the time of the frame that is missing.
        decoder: the name of who decoded them.
    """

    frames: np.ndarray
    asked: np.ndarray
    got: np.ndarray
    ok: np.ndarray
    decoder: str

    def __len__(self) -> int:
        return len(self.frames)


class VideoDecoder(ABC):
    """Reads chosen frames of a video.

    One object reads many videos, one after the other.  It is pickled on its way to the process that decodes, and it is
    built by ``conf/decoder/<name>.yaml``.

    Attributes:
        name: what users call it, as the yaml file.
    """

    name: str

    def probe(self, source: Source) -> Probe:
        """What the container says, without decoding a frame.

        Raises:
            DecodeError: no video that can be read.
        """
        return probe_video(source)

    @abstractmethod
    def decode(self, source: Source, probe: Probe, times: np.ndarray, size: int) -> Iterator[FrameChunk]:
        """Yield the frames on display at ``times``, in order, each time once.

        The frame on display at t seconds is the last one that begins at t or before (:meth:`Probe.on_display`).  It is
        scaled to the square, turned as its container says, and never cropped.

        Args:
            source: the file.
            probe: what :meth:`probe` told of it.
            times: float64[n], seconds from the first frame, ascending; no two of them show the same frame.  n >= 1.
            size: height and width of the frames, in pixels.

        Raises:
            UnsuitedError: before the first chunk only.
            DecodeError: the rest cannot be read.
        """
