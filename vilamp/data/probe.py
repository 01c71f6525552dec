"""What a video file says of itself, read by PyAV from the container without decoding a frame."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg"
"""Containers that are opened; others of FFmpeg's are playlists and scripts that would make it open further files."""


class DecodeError(Exception):
    """The video cannot be read."""


@dataclass(frozen=True)
class Probe:
    """A video stream before decoding.

    Attributes:
        pts: int64[F], presentation timestamps in the stream's time base, ascending and unique.
        starts: float64[F], the same in seconds from the first frame.
        end: when the last frame goes, in seconds from the first frame.
        container: FFmpeg's name of the format, e.g. ``mov,mp4,m4a,3gp,3g2,mj2``.
        codec: FFmpeg's name, e.g. ``h264``.
        open_gop: frames behind a keyframe in the file are shown before it, so that decoding cannot simply begin there.
    """

    pts: np.ndarray
    starts: np.ndarray
    end: float
    container: str
    codec: str
    open_gop: bool


@contextmanager
def translated(*errors: type[Exception]) -> Iterator[None]:
    """Turn a library's errors into :class:`DecodeError`."""
    try:
        yield
    except errors as error:
        message = error.strerror if isinstance(error, av.FFmpegError) else str(error)
        # Only the first line: decord appends its C++ stack.
        raise DecodeError((message or type(error).__name__).partition("\n")[0][:300]) from error


def open_container(source: bytes) -> Any:
    """Open a video file in memory with PyAV; a context manager that yields its ``InputContainer``."""
    return av.open(io.BytesIO(source), options={"format_whitelist": FORMATS})


def probe_video(source: bytes) -> Probe:
    """Read what the container says.

    Raises:
        DecodeError: not a video file, no video stream, no frames, no timestamps, or cut off.
    """
    with translated(av.FFmpegError), open_container(source) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise DecodeError("the file has no video stream")
        # An edit list marks frames that are decoded, but not shown.
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        if any(packet.is_corrupt for packet in packets):
            raise DecodeError(f"the file is cut off: it says {stream.frames} frames, {len(packets) - 1} are whole")
        seconds_per_tick, codec = float(stream.time_base), stream.codec_context.name
        name = container.format.name
    if not packets:
        raise DecodeError("the video has no frames")
    # AVI has decoding timestamps only, and no frames out of order either.
    times = [packet.pts if packet.pts is not None else packet.dts for packet in packets]
    if None in times:
        raise DecodeError("the video has no timestamps")
    pts = np.unique(np.array(times, dtype=np.int64))
    duration = packets[int(np.argmax(times))].duration or 0
    return Probe(
        pts=pts,
        starts=(pts - pts[0]) * seconds_per_tick,
        end=float(pts[-1] + duration - pts[0]) * seconds_per_tick,
        container=name,
        codec=codec,
        open_gop=_open_gop(times, [packet.is_keyframe for packet in packets]),
    )


def _open_gop(times: Sequence[int], keyframes: Sequence[bool]) -> bool:
    """Whether a frame that follows a keyframe in the file is shown before it."""
    latest = times[0]
    for time, keyframe in zip(times, keyframes, strict=True):
        if keyframe:
            latest = time
        elif time < latest:
            return True
    return False
