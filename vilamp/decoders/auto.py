"""The cheapest of the decoders that read a video rightly."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from vilamp.decoders import decord
from vilamp.decoders.decord import DecordDecoder
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.probe import DecodeError, Probe, Source
from vilamp.video import FrameChunk, VideoDecoder

log = logging.getLogger(__name__)

DENSE = 0.9
"""Share of the frames up to the last one from which on decord is tried: where all are wanted there is nothing to spare,
and decord's loop is in C++."""


class AutoDecoder(VideoDecoder):
    """decord for dense sampling of what it is known to read rightly, PyAV for all else.

    Every chunk says who decoded it.  Where decord is not installed PyAV decodes everything, which is said once.
    """

    name = "auto"

    def __init__(self) -> None:
        self.pyav = PyAVDecoder()
        self.decord = DecordDecoder() if decord.is_installed() else None
        if self.decord is None:
            log.warning("decord is not installed (it has no wheel for some platforms): PyAV decodes all videos")

    def decode(self, source: Source, probe: Probe, times: np.ndarray, size: int) -> Iterator[FrameChunk]:
        """See :meth:`VideoDecoder.decode`."""
        done = 0
        if self.decord is not None and len(times) >= DENSE * (int(probe.on_display(times[-1:])[0]) + 1):
            try:
                for chunk in self.decord.decode(source, probe, times, size):
                    done += len(chunk)
                    yield chunk
                return
            except DecodeError as error:
                if error.kind == "memory":
                    raise
                # Not suited, or decord's older FFmpeg fails over damage that PyAV reads around or tells better.
        if done < len(times):
            yield from self.pyav.decode(source, probe, times[done:], size)
