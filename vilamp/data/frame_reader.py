"""From a video file to the wanted frames, in this process or in one that can be ended.  Needs no torch."""

from __future__ import annotations

import logging
from typing import Protocol

import numpy as np

from vilamp.data.frames import FrameSettings, Part, iterate_frames, plan_times
from vilamp.data.isolation import Budget, Decoded, DecodeProcess, can_isolate
from vilamp.data.spool import Spool
from vilamp.probe import DecodeError, Source
from vilamp.samples import SkipSample
from vilamp.video import VideoDecoder

log = logging.getLogger(__name__)

REASONS = {"timeout": "decode_timeout", "memory": "decode_memory", "crash": "decode_crash"}
"""Kinds of :class:`~vilamp.probe.DecodeError` that are counted by themselves; all others are ``decode``."""


class _Decode(Protocol):
    def __call__(self, source: Source, part: Part | None) -> Decoded: ...


class _Probe(Protocol):
    def __call__(self, source: Source) -> tuple[float, str]: ...


class FrameReader:
    """Reads the frames that ``settings`` asks for, of one video after the other.

    Args:
        decoder: reads the pixels.
        settings: which frames, and how large.
        budget: of one video.  With any limit, videos are probed and decoded by a process of their own.
        spool: where the frames are put.
    """

    def __init__(self, decoder: VideoDecoder, settings: FrameSettings, budget: Budget, spool: Spool) -> None:
        self.decoder, self.settings, self.spool = decoder, settings, spool
        self._decode: _Decode = self._decode_here
        self._probe: _Probe = self._probe_here
        if budget.is_limited and not can_isolate():
            log.warning("videos are read without limits of time and memory: only Linux has what that needs")
        elif budget.is_limited:
            process = DecodeProcess(decoder, settings, budget, spool)
            self._decode, self._probe = process.decode, process.probe

    def read(self, source: Source, key: str, shard: str = "", part: Part | None = None) -> Decoded:
        """Decode a video.

        Args:
            source: the file.
            key: names the video in messages.
            shard: where it stands, for messages.
            part: only these of its frames.

        Raises:
            SkipSample: ``decode``, ``decode_timeout``, ``decode_memory`` or ``decode_crash``; the video, or a frame
                that is needed of it, cannot be read.
            PluginError: the decoder itself fails.
            OutputError: the disk does not take the frames.
        """
        try:
            return self._decode(source, part)
        except DecodeError as error:
            error.key, error.shard = key, shard
            raise SkipSample(REASONS.get(error.kind, "decode"), f"{key}: {error.cause}") from error

    def look(self, source: Source) -> tuple[float, str]:
        """The length of a video in seconds, and what says that it is not whole, empty where nothing does.

        Raises:
            SkipSample: ``decode``, ``decode_timeout``, ``decode_memory`` or ``decode_crash``; it cannot be read.
            PluginError: the decoder itself fails.
        """
        try:
            return self._probe(source)
        except DecodeError as error:
            raise SkipSample(REASONS.get(error.kind, "decode"), error.cause) from error

    def _probe_here(self, source: Source) -> tuple[float, str]:
        probe = self.decoder.probe(source)
        return probe.end, probe.damage

    def _decode_here(self, source: Source, part: Part | None) -> Decoded:
        probe = self.decoder.probe(source)
        times = plan_times(probe, self.settings, part)
        with self.spool.told():
            decoded = Decoded(self.spool.room_for(len(times), self.settings.size), np.empty(len(times)))
            for chunk in iterate_frames(source, probe, times, self.decoder, self.settings):
                decoded.add(chunk)
        return decoded
