"""What a video file says of itself, read by PyAV from the container without decoding a frame."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import av
import numpy as np

FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg"
"""Containers that are opened; others of FFmpeg's are playlists and scripts that would make it open further files."""

MAX_PIXELS = 1 << 26
"""Of one frame, twice those of 8K.  A few bytes can ask for a picture of any size, and a decoder holds several."""
MAX_FRAMES = 10_000_000
"""Of one video: a day at 100 frames a second.  A few bytes of index can claim any number."""
MAX_TICKS = 1 << 62
"""Between the first and the last timestamp, so that differences stay within int64."""


class DecodeError(Exception):
    """The video cannot be read."""


@dataclass(frozen=True)
class Probe:
    """A video stream before decoding.

    Attributes:
        pts: int64[F], presentation timestamps in the stream's time base, ascending and unique.
        starts: float64[F], the same in seconds from the first frame.
        end: when the last frame goes, in seconds from the first frame; at least ``starts[-1]``.
        container: FFmpeg's name of the format, e.g. ``mov,mp4,m4a,3gp,3g2,mj2``.
        codec: FFmpeg's name, e.g. ``h264``.
        open_gop: frames behind a keyframe in the file are shown before it, so that decoding cannot simply begin there.
        declared: how many frames the container says it has, 0 where it says nothing; F in a sound file.
    """

    pts: np.ndarray
    starts: np.ndarray
    end: float
    container: str
    codec: str
    open_gop: bool
    declared: int

    @property
    def by_rank(self) -> bool:
        """Whether a decoded frame is known by how many came before it, not by its timestamp.

        AVI stores no presentation times.  Those of its packets are right as a whole, but where frames are shown in
        another order than they are stored in, they are on the wrong frames.
        """
        return self.container == "avi"


class _Packet(NamedTuple):
    """What is kept of a packet: all of it together would be a second copy of the file."""

    time: int
    duration: int
    keyframe: bool
    shown: bool


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
    # A title that is no UTF-8 is no reason to refuse a video.
    return av.open(io.BytesIO(source), options={"format_whitelist": FORMATS}, metadata_errors="replace")


def demux(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream; last the empty one for which a decoder hands out what it holds back."""
    for packet in container.demux(stream):
        yield packet
        if not packet.size and packet.dts is None:
            # PyAV would go on to streams that it met only while reading, and may fail there.
            return


def probe_video(source: bytes) -> Probe:
    """Read what the container says.

    Raises:
        DecodeError: not a video file, no video stream, no frames, no timestamps, too large a picture, or cut off.
    """
    with translated(av.FFmpegError), open_container(source) as container:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None or not stream.time_base:
            raise DecodeError("the file has no video stream that can be decoded")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise DecodeError(f"a frame has {width} x {height} pixels, {MAX_PIXELS} are allowed")
        packets = list(_packets(container, stream, len(source)))
        seconds_per_tick, codec = float(stream.time_base), stream.codec_context.codec.canonical_name
        name, declared = container.format.name, stream.frames
    times, end = _shown(packets)
    if end - times[0] > MAX_TICKS:
        raise DecodeError(f"the timestamps span {end - times[0]} ticks, which cannot be")
    pts = np.unique(np.array(times, dtype=np.int64))
    return Probe(
        pts=pts,
        starts=(pts - pts[0]) * seconds_per_tick,
        end=(end - times[0]) * seconds_per_tick,
        container=name,
        codec=codec,
        open_gop=_open_gop(packets),
        declared=declared,
    )


def _packets(container: Any, stream: Any, size: int) -> Iterator[_Packet]:
    whole = 0
    for packet in demux(container, stream):
        if packet.is_corrupt:
            raise DecodeError(f"the file is cut off or damaged behind frame {whole}")
        if packet.size:
            whole += 1
            if whole > MAX_FRAMES:
                raise DecodeError(f"the video has more than {MAX_FRAMES} frames")
            # Some containers have decoding times only.
            time = packet.pts if packet.pts is not None else packet.dts
            if time is None:
                raise DecodeError("the video has no timestamps")
            # An edit list marks frames that are decoded, but not shown.
            yield _Packet(time, max(packet.duration or 0, 0), packet.is_keyframe, not packet.is_discard)
    # Cut between two frames, a file only ends early.  In mp4 and its kin the index tells what should be there.
    if container.format.name.startswith("mov") and any(e.pos + e.size > size for e in stream.index_entries):
        raise DecodeError(f"the file is cut off behind frame {whole}")


def _shown(packets: Sequence[_Packet]) -> tuple[list[int], int]:
    """When the frames that can be shown begin, ascending, and when the last one ends, in ticks."""
    if not packets:
        raise DecodeError("the video has no frames")
    # What is shown before the first keyframe needs frames that are not in the file: a recording of a broadcast begins
    # anywhere.
    begin = next((packet.time for packet in packets if packet.keyframe), packets[0].time)
    timed = sorted((packet.time, packet.duration) for packet in packets if packet.shown and packet.time >= begin)
    if not timed:
        raise DecodeError("the video has no frames that are shown")
    return [time for time, _ in timed], sum(timed[-1])


def _open_gop(packets: Sequence[_Packet]) -> bool:
    """Whether a frame that follows a keyframe in the file is shown before it."""
    latest = packets[0].time
    for packet in packets:
        if packet.keyframe:
            latest = packet.time
        elif packet.time < latest:
            return True
    return False
