"""From a video file to chunks of its sampled frames, by any decoder.  Needs no torch.

One rule: the frame for time k / fps is the one on display then, counted from the video's first frame.  When frames are
on display comes from the container (:mod:`vilamp.probe`), which of them are wanted from arithmetic
(:mod:`vilamp.data.sampling`), their pixels from a :class:`~vilamp.video.VideoDecoder`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from vilamp.data.sampling import asked_times, plan_frames
from vilamp.errors import ConfigError
from vilamp.probe import DecodeError, Probe, Source
from vilamp.video import CHUNK, FrameChunk, VideoDecoder

Sampling = Literal["uniform_fps", "iframes"]
Corrupt = Literal["error", "gap"]


@dataclass(frozen=True)
class FrameSettings:
    """How videos are read.

    Attributes:
        fps: frames a second.
        max_frames: of a video, evenly spread where it has more; bounds the memory and the tokens that it can take.
        size: height and width of the frames in pixels.  Both axes are scaled to it, whatever the video's aspect ratio,
            as SigLIP's own preprocessing does: nothing is cropped away.
        sampling: ``uniform_fps``; or ``iframes``, which takes the keyframes of the encoder only, at most ``fps`` of
            them a second.
        corrupt: ``error``: a video of which a wanted frame cannot be decoded is not used.  ``gap``: the last good frame
            stands in its place.
        max_gaps: the share of such frames up to which a video is used.

    Raises:
        ConfigError: a value out of its range.
    """

    fps: float
    max_frames: int
    size: int
    sampling: Sampling = "uniform_fps"
    corrupt: Corrupt = "error"
    max_gaps: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.fps < float("inf"):
            raise ConfigError(f"data.fps must be positive, got {self.fps}")
        if self.max_frames < 1:
            raise ConfigError(f"data.max_frames must be at least 1, got {self.max_frames}")
        if self.size < 1:
            raise ConfigError(f"data.frame_size must be at least 1 pixel, got {self.size}")
        for name, choices in (("sampling", Sampling), ("corrupt", Corrupt)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(f"data.{name} must be {' or '.join(get_args(choices))}, got {getattr(self, name)!r}")
        if not 0 <= self.max_gaps <= 1:
            raise ConfigError(f"data.max_gaps must be a share, 0 to 1, got {self.max_gaps}")


Part = tuple[int, int]
"""(start, stop): of the frames that the settings ask for, only numbers start to stop - 1."""


def plan_times(probe: Probe, settings: FrameSettings, part: Part | None = None) -> np.ndarray:
    """float64[n]: the times to ask a decoder for, ascending, each for another frame; 1 <= n <= max_frames.

    Raises:
        DecodeError: the file is not whole, and ``settings.corrupt`` is ``error``; or there is no such ``part`` of it.
    """
    if probe.damage and settings.corrupt == "error":
        raise DecodeError("truncated", probe.damage)
    times = _all_times(probe, settings)
    if part is None:
        return times
    start, stop = part
    if not 0 <= start < stop <= len(times):
        raise DecodeError("truncated", f"the video has {len(times)} frames, numbers {start} to {stop - 1} are wanted")
    return times[start:stop]


def _all_times(probe: Probe, settings: FrameSettings) -> np.ndarray:
    if settings.sampling == "uniform_fps":
        indices = plan_frames(probe.starts, probe.end, settings.fps, settings.max_frames)
        return asked_times(probe.starts, indices, settings.fps)
    starts = probe.starts[probe.keyframes] if len(probe.keyframes) else probe.starts[:1]
    chosen = plan_frames(starts - starts[0], probe.end - starts[0], settings.fps, settings.max_frames)
    return starts[chosen]


def iterate_frames(
    source: Source, probe: Probe, times: np.ndarray, decoder: VideoDecoder, settings: FrameSettings
) -> Iterator[FrameChunk]:
    """The frames of a plan, chunk by chunk; what cannot be decoded is treated as ``settings.corrupt`` says.

    Args:
        source: the file.
        probe: what ``decoder.probe`` tells of it.
        times: as :func:`plan_times` gives them.
        decoder: whom to ask.
        settings: how videos are read.

    Raises:
        DecodeError: the video cannot be read, or has more gaps than it may.
    """
    done = gaps = 0
    for chunk in _complete(source, probe, times, decoder, settings):
        bad = np.flatnonzero(~chunk.ok)
        gaps += len(bad)
        if len(bad) and settings.corrupt == "error":
            raise DecodeError("corrupt", f"the frame at {chunk.got[bad[0]]:.3f} s cannot be decoded")
        if gaps > settings.max_gaps * len(times):
            raise DecodeError(
                "corrupt",
                f"{gaps} of the first {done + len(chunk)} frames cannot be decoded, of {len(times)} in all; "
                f"data.max_gaps={settings.max_gaps} are allowed",
            )
        done += len(chunk)
        yield chunk


def _complete(
    source: Source, probe: Probe, times: np.ndarray, decoder: VideoDecoder, settings: FrameSettings
) -> Iterator[FrameChunk]:
    """The decoder's chunks, checked, and gaps for what is left where it gives up and gaps are allowed."""
    done, last, name = 0, np.zeros((settings.size, settings.size, 3), dtype=np.uint8), decoder.name
    try:
        for chunk in decoder.decode(source, probe, times, settings.size):
            if not np.array_equal(chunk.asked, times[done : done + len(chunk)]):
                raise DecodeError("corrupt", f"{chunk.decoder} answered other times than it was asked for")
            done += len(chunk)
            last, name = chunk.frames[-1], chunk.decoder
            yield chunk
        if done != len(times):
            raise DecodeError("corrupt", f"{name} read {done} of {len(times)} frames")
    except DecodeError as error:
        if settings.corrupt == "error" or error.kind not in ("corrupt", "truncated", "unreadable"):
            raise
    for first in range(done, len(times), CHUNK):
        asked = times[first : first + CHUNK]
        frames = np.broadcast_to(last, (len(asked), *last.shape))
        yield FrameChunk(frames, asked, probe.starts[probe.on_display(asked)], np.zeros(len(asked), bool), name)
