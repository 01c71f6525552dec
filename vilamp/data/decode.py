"""From the bytes of a video file to the sampled frames of it.

One rule: the frame for time k / fps is the one on display then, counted from the video's first frame.  When frames are
on display comes from the container (:mod:`vilamp.data.probe`), which of them are wanted from arithmetic
(:mod:`vilamp.data.sampling`), their pixels from a :class:`~vilamp.data.decoders.VideoDecoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vilamp.data.decoders import UnsuitedError, VideoDecoder, decoders
from vilamp.data.probe import DecodeError, Probe, probe_video
from vilamp.data.sampling import plan_frames
from vilamp.errors import ConfigError
from vilamp.samples import SkipSample, Video


@dataclass(frozen=True)
class FrameSettings:
    """How videos are read.

    Attributes:
        fps: frames a second.
        max_frames: of a video, evenly spread where it has more; bounds the memory and the tokens that it can take.
        size: height and width of the frames in pixels.  Both axes are scaled to it, whatever the video's aspect ratio,
            as SigLIP's own preprocessing does: nothing is cropped away.

    Raises:
        ConfigError: a value out of its range.
    """

    fps: float
    max_frames: int
    size: int

    def __post_init__(self) -> None:
        if not 0 < self.fps < float("inf"):
            raise ConfigError(f"data.fps must be positive, got {self.fps}")
        if self.max_frames < 1:
            raise ConfigError(f"data.max_frames must be at least 1, got {self.max_frames}")
        if self.size < 1:
            raise ConfigError(f"data.frame_size must be at least 1 pixel, got {self.size}")


def read_video(source: bytes, key: str, settings: FrameSettings, use: Sequence[VideoDecoder] | None = None) -> Video:
    """Decode the frames of a video that ``settings`` asks for.

    Args:
        source: the file.
        key: names the video in messages and in the result.
        settings: which frames, and how large.
        use: decoders in the order in which they are tried; a video that one is not suited for goes to the next.
            None: :func:`~vilamp.data.decoders.decoders`.

    Raises:
        SkipSample: ``decode``; the video, or a frame that is needed of it, cannot be read.
    """
    try:
        probe = probe_video(source)
        indices = plan_frames(probe.starts, probe.end, settings.fps, settings.max_frames)
        frames = _decode(source, probe, indices, settings.size, decoders() if use is None else use)
    except DecodeError as error:
        raise SkipSample("decode", f"{key}: {error}") from error
    return Video(key, torch.from_numpy(frames), torch.from_numpy(probe.starts[indices]))


def _decode(source: bytes, probe: Probe, indices: np.ndarray, size: int, use: Sequence[VideoDecoder]) -> np.ndarray:
    frames = np.empty((len(indices), size, size, 3), dtype=np.uint8)
    reasons = []
    for decoder in use:
        done = 0
        try:
            for chunk in decoder.decode(source, probe, indices, size):
                frames[done : done + len(chunk)] = chunk
                done += len(chunk)
        except UnsuitedError as error:
            reasons.append(str(error))
            continue
        if done != len(frames):
            raise DecodeError(f"{decoder.name} read {done} of {len(frames)} frames")
        return frames
    raise DecodeError(f"no decoder is suited: {'; '.join(reasons)}")
