"""From a video file to a :class:`~vilamp.samples.Video`, in this process or in one that can be ended."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from vilamp.data.frame_identity import frame_identity
from vilamp.data.frames import FrameSettings, Part, iterate_frames, plan_times
from vilamp.data.isolation import Budget, Decoded, DecodeProcess, can_isolate
from vilamp.data.spool import Spool
from vilamp.embedding_cache import EmbeddingCache
from vilamp.frame_file import FrameFile
from vilamp.probe import DecodeError, Source
from vilamp.samples import SkipSample, Video
from vilamp.video import VideoDecoder

log = logging.getLogger(__name__)

REASONS = {"timeout": "decode_timeout", "memory": "decode_memory", "crash": "decode_crash"}
"""Kinds of :class:`~vilamp.probe.DecodeError` that are counted by themselves; all others are ``decode``."""


class _Decode(Protocol):
    def __call__(self, source: Source, part: Part | None) -> Decoded: ...


@dataclass
class VideoReader:
    """Reads the frames of videos that ``settings`` asks for.

    Attributes:
        decoder: reads the pixels.
        settings: which frames, and how large.
        budget: of one video.  With any limit, videos are decoded by a process of their own.
        spool: where the frames are put.
        cache: has the embeddings of videos that were read before in the same way.
        needs_frames: False leaves those undecoded of which the cache has the embeddings.
    """

    decoder: VideoDecoder
    settings: FrameSettings
    budget: Budget = field(default_factory=Budget)
    spool: Spool = field(default_factory=Spool)
    cache: EmbeddingCache | None = None
    needs_frames: bool = True

    def __post_init__(self) -> None:
        self._identify = None if self.cache is None else frame_identity(self.decoder, self.settings)
        self._decode: _Decode = self._decode_here
        if self.budget.is_limited and not can_isolate():
            log.warning("videos are decoded without limits of time and memory: only Linux has what that needs")
        elif self.budget.is_limited:
            self._decode = DecodeProcess(self.decoder, self.settings, self.budget, self.spool).decode

    def read(self, source: Source, key: str, shard: str = "", part: Part | None = None) -> Video:
        """Decode a video.

        Args:
            source: the file.
            key: names the video in messages and in the result.
            shard: where it stands, for messages.
            part: only these of its frames; their embeddings are an entry of their own in the cache.

        Raises:
            SkipSample: ``decode``, ``decode_timeout``, ``decode_memory`` or ``decode_crash``; the video, or a frame
                that is needed of it, cannot be read.
            PluginError: the decoder itself fails.
            OutputError: the disk does not take the frames.
        """
        lookup = None if self.cache is None or self._identify is None else self.cache.find(self._identify(source, part))
        if lookup is not None and lookup.timestamps is not None and not self.needs_frames:
            none = torch.empty((0, self.settings.size, self.settings.size, 3), dtype=torch.uint8)
            return Video(key, none, lookup.timestamps, lookup=lookup)
        try:
            decoded = self._decode(source, part)
        except DecodeError as error:
            error.key, error.shard = key, shard
            raise SkipSample(REASONS.get(error.kind, "decode"), f"{key}: {error.cause}") from error
        frames, timestamps = decoded.frames, torch.from_numpy(decoded.timestamps)
        return Video(
            key=key,
            frames=frames if isinstance(frames, FrameFile) else torch.from_numpy(frames),
            timestamps=timestamps,
            decoder=decoded.decoder,
            gaps=decoded.gaps,
            lookup=None if lookup is None else lookup.agreeing_with(timestamps),
        )

    def _decode_here(self, source: Source, part: Part | None) -> Decoded:
        probe = self.decoder.probe(source)
        times = plan_times(probe, self.settings, part)
        with self.spool.told():
            decoded = Decoded(self.spool.room_for(len(times), self.settings.size), np.empty(len(times)))
            for chunk in iterate_frames(source, probe, times, self.decoder, self.settings):
                decoded.add(chunk)
        return decoded
