"""From the bytes of a video file to the sampled frames of it.

One rule: the frame for time k / fps is the one on display then, counted from the video's first frame
(:mod:`vilamp.data.sampling`).  The times come from the container, read by PyAV without decoding; the pixels come from a
:class:`~vilamp.data.decoders.VideoDecoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np
import torch

from vilamp.data.decoders import DecodeError, Probe, UnsuitedError, VideoDecoder, decoders, open_container, translated
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


def probe_video(source: bytes) -> Probe:
    """Read the times of all frames from the container, without decoding any.

    Raises:
        DecodeError: not a video file, no video stream, no frames, or the file ends before its last frame.
    """
    with translated(av.FFmpegError), open_container(source) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise DecodeError("the file has no video stream")
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        if any(packet.is_corrupt for packet in packets):
            raise DecodeError(f"the file is cut off or damaged: {len(packets)} of {stream.frames} frames can be read")
        seconds_per_tick = float(stream.time_base)
        # AVI has no presentation timestamps, and no frames out of order either.
        times = [(p.pts if p.pts is not None else p.dts, p.duration or 0) for p in packets]
    if not times:
        raise DecodeError("the video has no frames")
    if any(time is None for time, _ in times):
        raise DecodeError("the video has no timestamps")
    pts = np.unique(np.array([time for time, _ in times], dtype=np.int64))
    end = max(time + duration for time, duration in times)
    return Probe(pts, (pts - pts[0]) * seconds_per_tick, float(end - pts[0]) * seconds_per_tick)


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
