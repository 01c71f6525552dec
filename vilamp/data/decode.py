"""From a video file to a :class:`~vilamp.samples.Video`, with what the embedding cache has for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from vilamp.data.frame_identity import frame_identity
from vilamp.data.frame_reader import FrameReader
from vilamp.data.frames import FrameSettings, Part
from vilamp.data.isolation import Budget
from vilamp.data.spool import Spool
from vilamp.embedding_cache import EmbeddingCache
from vilamp.frame_file import FrameFile
from vilamp.probe import Source
from vilamp.samples import Video
from vilamp.video import VideoDecoder


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
        self._frames = FrameReader(self.decoder, self.settings, self.budget, self.spool)

    def read(self, source: Source, key: str, shard: str = "", part: Part | None = None) -> Video:
        """Decode a video.

        Args:
            source: the file.
            key: names the video in messages and in the result.
            shard: where it stands, for messages.
            part: only these of its frames; their embeddings are an entry of their own in the cache.

        Raises:
            SkipSample, PluginError, OutputError: as :meth:`FrameReader.read`.
        """
        lookup = None if self.cache is None or self._identify is None else self.cache.find(self._identify(source, part))
        if lookup is not None and lookup.timestamps is not None and not self.needs_frames:
            none = torch.empty((0, self.settings.size, self.settings.size, 3), dtype=torch.uint8)
            return Video(key, none, lookup.timestamps, lookup=lookup)
        decoded = self._frames.read(source, key, shard, part)
        frames, timestamps = decoded.frames, torch.from_numpy(decoded.timestamps)
        return Video(
            key=key,
            frames=frames if isinstance(frames, FrameFile) else torch.from_numpy(frames),
            timestamps=timestamps,
            decoder=decoded.decoder,
            gaps=decoded.gaps,
            lookup=None if lookup is None else lookup.agreeing_with(timestamps),
        )
