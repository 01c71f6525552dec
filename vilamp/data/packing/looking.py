"""What the containers of videos say, asked of a process beside this one, which may hang or crash over them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from vilamp.data.frame_reader import FrameReader
from vilamp.data.frames import FrameSettings
from vilamp.data.isolation import USUAL
from vilamp.data.spool import Spool
from vilamp.probe import Probe, Source
from vilamp.video import FrameChunk, VideoDecoder


class PacketReader(VideoDecoder):
    """Probes only."""

    name = "packets"

    def decode(self, source: Source, probe: Probe, times: np.ndarray, size: int) -> Iterator[FrameChunk]:
        """Not to be called."""
        raise NotImplementedError


def look_at_video(source: Source, reader: FrameReader | None = None) -> tuple[float, str]:
    """The length of a video in seconds, and what says that it is not whole, empty where nothing does.

    Args:
        source: the file.
        reader: whose process is asked; without one it is a process for all that this one looks at.

    Raises:
        SkipSample: ``decode``, ``decode_timeout``, ``decode_memory`` or ``decode_crash``; it cannot be read.
        PluginError: the process cannot be started.
    """
    seconds, damage = (reader or _reader()).look(source)
    return round(seconds, 3), damage


def stop_looking() -> None:
    """End the process beside this one, if there is one; it also ends with this one."""
    _reader.cache_clear()


@cache
def _reader() -> FrameReader:
    return FrameReader(PacketReader(), FrameSettings(fps=1.0, max_frames=1, size=1), USUAL, Spool())
