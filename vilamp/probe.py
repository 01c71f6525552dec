"""What a video file says of itself, read by PyAV from the container without decoding a frame."""

from __future__ import annotations

import errno
import io
import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, Literal, cast

import av
import numpy as np

from vilamp.file_kinds import HEAD, container_of, declared_bytes, kind_of

log = logging.getLogger(__name__)

FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif"
"""Containers that are opened; others of FFmpeg's are playlists and scripts that would make it open further files."""

BEGIN_ANYWHERE = ("mpegts", "mpeg", "asf", "flv")
"""Containers of broadcasts and streams, of which a recording begins between two keyframes."""

MAX_PIXELS = 1 << 26
"""Of one frame, twice those of 8K.  A few bytes can ask for a picture of any size, and a decoder holds several."""
MAX_FRAMES = 10_000_000
"""Of one video: a day at 100 frames a second.  A few bytes of index can claim any number."""
MAX_TICKS = 1 << 62
"""Between the first and the last timestamp, so that differences stay within int64."""

Kind = Literal["unreadable", "too_large", "truncated", "corrupt", "unsuited", "timeout", "memory", "crash"]


class DecodeError(Exception):
    """A video cannot be read.

    Args:
        kind: ``unreadable`` (no video that anything here decodes), ``too_large``, ``truncated``, ``corrupt``,
            ``unsuited`` (this decoder is known to read such a file wrongly), ``timeout``, ``memory`` or ``crash``.
        cause: what exactly was wrong.
        key, shard: which video, and the file that it stands in; empty where only the caller knows.
    """

    def __init__(self, kind: Kind, cause: str, *, key: str = "", shard: str = "") -> None:
        super().__init__(kind, cause)
        self.kind, self.cause, self.key, self.shard = kind, cause, key, shard

    def __str__(self) -> str:
        return ": ".join(part for part in (self.shard, self.key, self.cause) if part)


@dataclass(frozen=True)
class FileRange:
    """A video that stands in a file, or in a part of one (a member of a tar), and is read from there piece by piece."""

    path: str
    offset: int
    size: int


Source = bytes | FileRange
"""A video file in memory, or where it is."""


class _Window(io.RawIOBase):
    """The bytes of a :class:`FileRange` as a file of their own."""

    def __init__(self, source: FileRange) -> None:
        super().__init__()
        self.file = io.FileIO(source.path)
        self.source, self.place = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = max(offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.source.size}[whence], 0)
        return self.place

    def read(self, size: int = -1) -> bytes:
        left = max(self.source.size - self.place, 0)
        self.file.seek(self.source.offset + self.place)
        data = self.file.read(left if size < 0 else min(size, left)) or b""
        self.place += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


def open_source(source: Source) -> BinaryIO:
    """A video as a file to read and seek in, closed by the caller."""
    return io.BytesIO(source) if isinstance(source, bytes) else cast(BinaryIO, _Window(source))


KEYFRAME_UNITS = {"h264": (5,), "hevc": (19, 20)}
"""NAL unit types of pictures behind which no picture refers to an earlier one (ITU-T H.264 table 7-1, H.265 table 7-1).

Containers also flag pictures from which decoding merely recovers after a while.
"""
WHOLE_KEYFRAMES = ("vp8", "vp9", "mjpeg")
"""Codecs whose keyframes always reset everything."""


@dataclass(frozen=True)
class Probe:
    """A video stream before decoding.

    Attributes:
        pts: int64[F], presentation timestamps in the stream's time base, ascending and unique.
        starts: float64[F], the same in seconds from the first frame.
        end: when the last frame goes, in seconds from the first frame; at least ``starts[-1]``.
        container: FFmpeg's name of the format, e.g. ``mov,mp4,m4a,3gp,3g2,mj2``.
        codec: FFmpeg's name, e.g. ``h264``.
        width, height: of the stored pictures, before any rotation.
        keyframes: int64[], positions in ``pts`` of the frames that the container calls keyframes.
        entries: int64[], those of them at which decoding can begin: nothing from there on needs anything before.
        open_gop: frames behind a keyframe in the file are shown before it, so that decoding cannot simply begin there.
        damage: what says that the file is not whole, empty where nothing does.
        declared: how many frames the container says it has, 0 where it says nothing; F in a sound file.
    """

    pts: np.ndarray
    starts: np.ndarray
    end: float
    container: str
    codec: str
    width: int
    height: int
    keyframes: np.ndarray
    entries: np.ndarray
    open_gop: bool
    declared: int
    damage: str = ""

    @property
    def by_rank(self) -> bool:
        """Whether a decoded frame is known by how many came before it, not by its timestamp.

        AVI stores no presentation times.  Those of its packets are right as a whole, but where frames are shown in
        another order than they are stored in, they are on the wrong frames.
        """
        return self.container == "avi"

    def on_display(self, times: np.ndarray) -> np.ndarray:
        """int64[n]: for each of float64[n] seconds from the first frame, the position in ``pts`` of the frame shown."""
        return np.maximum(np.searchsorted(self.starts, times, side="right") - 1, 0)


class _Packets:
    """What is kept of the packets, in the order of the file: 18 bytes each, since three hours have 300,000 of them."""

    def __init__(self) -> None:
        self.times, self.ends = array("q"), array("q")
        self.keyframe, self.clean, self.shown = bytearray(), bytearray(), bytearray()

    def add(self, packet: Any, time: int, clean: bool) -> None:
        self.times.append(time)
        self.ends.append(min(time + max(packet.duration or 0, 0), np.iinfo(np.int64).max))
        self.keyframe.append(packet.is_keyframe)
        self.clean.append(clean)
        # An edit list marks frames that are decoded, but not shown.
        self.shown.append(not packet.is_discard)


@contextmanager
def translated(*errors: type[Exception]) -> Iterator[None]:
    """Turn a library's errors into :class:`DecodeError`."""
    try:
        yield
    except errors as error:
        message = error.strerror if isinstance(error, av.FFmpegError) else str(error)
        # Only the first line: decord appends its C++ stack.
        first = (message or type(error).__name__).partition("\n")[0][:300]
        raise DecodeError("memory" if isinstance(error, MemoryError) else "unreadable", first) from error


@contextmanager
def open_container(source: Source) -> Iterator[Any]:
    """Open a video file with PyAV; yields its ``InputContainer``.

    Raises:
        DecodeError: it is no video file, and what it is instead.
    """
    options = {"format_whitelist": FORMATS}
    with open_source(source) as file:
        try:
            # A title that is no UTF-8 is no reason to refuse a video.
            container = av.open(file, options=options, metadata_errors="replace")
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            file.seek(0)
            raise DecodeError("unreadable", _not_opened(error, file.read(HEAD))) from error
        with container:
            yield container


def _not_opened(error: av.FFmpegError, head: bytes) -> str:
    if kind := kind_of(head):
        return f"this is {kind}"
    if container := container_of(head):
        # An mp4 often has at its end what all of it is read by.
        return f"{error.strerror}; the file begins as {container}, and is damaged or cut off: fetch or copy it again"
    # "Invalid argument" is also what FFmpeg says of a format that is none of FORMATS.
    told = "; the file is damaged, or of a kind that is not read" if error.errno == errno.EINVAL else ""
    return f"{error.strerror}{told}"


def demux(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream; last the empty one for which a decoder hands out what it holds back."""
    for packet in container.demux(stream):
        yield packet
        if not packet.size and packet.dts is None:
            # PyAV would go on to streams that it met only while reading, and may fail there.
            return


def probe_video(source: Source) -> Probe:
    """Read what the container says.

    Raises:
        DecodeError: not a video file, no video stream, no frames, no timestamps, too large a picture, or cut off.
    """
    with translated(av.FFmpegError), open_container(source) as container:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None or not stream.time_base:
            raise DecodeError("unreadable", "the file has no video stream that can be decoded")
        if stream.disposition & av.stream.Disposition.attached_pic:
            raise DecodeError("unreadable", "the file has a cover picture and no video")
        context = stream.codec_context
        width, height, codec = context.width, context.height, context.codec.canonical_name
        if width * height > MAX_PIXELS:
            raise DecodeError("too_large", f"a frame has {width} x {height} pixels, {MAX_PIXELS} are allowed")
        size = len(source) if isinstance(source, bytes) else source.size
        packets, damage = _read_packets(container, stream, codec, size)
        seconds_per_tick = float(stream.time_base)
        name, declared = container.format.name, stream.frames
    if not damage and not _is_whole(source, name, size):
        damage = f"the file is cut off behind frame {len(packets.times)}"
    pts, end = _shown(packets, name.startswith(BEGIN_ANYWHERE))
    return Probe(
        pts=pts,
        starts=(pts - pts[0]) * seconds_per_tick,
        end=(end - int(pts[0])) * seconds_per_tick,
        container=name,
        codec=codec,
        width=width,
        height=height,
        keyframes=_positions(pts, packets, bytes(packets.keyframe)),
        entries=_positions(pts, packets, _entries(packets)),
        open_gop=_open_gop(packets),
        declared=declared,
        damage=damage,
    )


def _read_packets(container: Any, stream: Any, codec: str, size: int) -> tuple[_Packets, str]:
    """All packets, and what says that the file is not whole."""
    packets, damage = _Packets(), ""
    for packet in demux(container, stream):
        whole = len(packets.times)
        if packet.is_corrupt and not damage:
            damage = f"the file is cut off or damaged behind frame {whole}"
        if packet.size:
            if whole >= MAX_FRAMES:
                raise DecodeError("too_large", f"the video has more than {MAX_FRAMES} frames")
            # Some containers have decoding times only.
            time = packet.pts if packet.pts is not None else packet.dts
            if time is None:
                raise DecodeError("unreadable", "the video has no timestamps")
            packets.add(packet, time, _is_clean(packet, codec, stream.codec_context.extradata))
    # Cut between two frames, a file only ends early.  In mp4 and its kin the index tells what should be there.
    if container.format.name.startswith("mov") and any(e.pos + e.size > size for e in _index(stream)):
        raise DecodeError("truncated", damage or f"the file is cut off behind frame {len(packets.times)}")
    return packets, damage


def _index(stream: Any) -> Sequence[Any]:
    """What the container's own index lists, which PyAV before 17 does not show (lmms-eval asks for one of these)."""
    if hasattr(stream, "index_entries"):
        return stream.index_entries
    _tell_of_old_pyav()
    return ()


@cache
def _tell_of_old_pyav() -> None:
    log.warning("PyAV %s: an mp4 that is cut off between two frames is not noticed; 17 or newer does", av.__version__)


def _is_whole(source: Source, container: str, size: int) -> bool:
    """False where a file of ``size`` bytes ends too early, which FFmpeg says nothing of in these containers."""
    with open_source(source) as file:
        if container == "gif":  # without its last byte FFmpeg shows what there is of the last picture
            file.seek(-min(size, 64), os.SEEK_END)
            return file.read().rstrip(b"\0\r\n").endswith(b";")
        return (declared_bytes(file.read(HEAD)) or 0) <= size


def _is_clean(packet: Any, codec: str, extradata: bytes | None) -> bool:
    """Whether nothing from this packet on refers to what comes before it in the file."""
    if not packet.is_keyframe or packet.is_corrupt:
        return False
    if codec not in KEYFRAME_UNITS:
        return codec in WHOLE_KEYFRAMES
    units = list(_unit_types(memoryview(packet), codec, extradata or b""))
    pictures = [unit for unit in units if (1 <= unit <= 5 if codec == "h264" else unit < 32)]
    return bool(pictures) and set(pictures) <= set(KEYFRAME_UNITS[codec])


def _unit_types(data: memoryview, codec: str, extradata: bytes) -> Iterator[int]:
    """The types of the NAL units of a packet, none where it is not in the form with lengths (ISO/IEC 14496-15)."""
    place = 4 if codec == "h264" else 21
    if len(extradata) <= place or extradata[0] != 1:
        return
    length_bytes = (extradata[place] & 3) + 1
    place = 0
    while place + length_bytes < len(data):
        first = data[place + length_bytes]
        yield first & 31 if codec == "h264" else first >> 1 & 63
        place += length_bytes + int.from_bytes(data[place : place + length_bytes], "big")


def _shown(packets: _Packets, begins_anywhere: bool) -> tuple[np.ndarray, int]:
    """When the frames that can be shown begin, int64 ascending and unique, and when the last one ends, in ticks."""
    if not packets.times:
        raise DecodeError("unreadable", "the video has no frames")
    times, ends = np.array(packets.times), np.array(packets.ends)
    # What is shown before the first keyframe needs frames that are not in the file.  Elsewhere it means damage, and
    # these frames are missed when they are decoded.
    begin = times[max(packets.keyframe.find(1), 0)] if begins_anywhere else times.min()
    wanted = np.frombuffer(bytes(packets.shown), dtype=bool) & (times >= begin)
    if not wanted.any():
        raise DecodeError("unreadable", "the video has no frames that are shown")
    pts = np.unique(times[wanted])
    end = int(ends[wanted & (times == pts[-1])].max())
    if end - int(pts[0]) > MAX_TICKS:
        raise DecodeError("unreadable", f"the timestamps span {end - int(pts[0])} ticks, which cannot be")
    return pts, end


def _entries(packets: _Packets) -> bytes:
    """Flags of the clean keyframes that are shown after all that comes before them and before all that follows."""
    times = np.array(packets.times)
    latest_before = np.append(np.iinfo(np.int64).min, np.maximum.accumulate(times)[:-1])
    earliest_from = np.minimum.accumulate(times[::-1])[::-1]
    alone = (times > latest_before) & (times == earliest_from)
    return (np.frombuffer(bytes(packets.clean), dtype=bool) & alone).tobytes()


def _positions(pts: np.ndarray, packets: _Packets, flags: bytes) -> np.ndarray:
    """The positions in ``pts`` of the packets that are flagged and shown."""
    chosen = np.frombuffer(flags, dtype=bool) & np.frombuffer(bytes(packets.shown), dtype=bool)
    times = np.array(packets.times)[chosen]
    return np.unique(np.searchsorted(pts, times[times >= pts[0]]))


def _open_gop(packets: _Packets) -> bool:
    """Whether a frame that follows a keyframe in the file is shown before it."""
    times, keyframe = np.array(packets.times), np.frombuffer(bytes(packets.keyframe), dtype=bool)
    latest = np.maximum.accumulate(np.where(keyframe, np.arange(len(times)), 0))  # the last keyframe up to here, or 0
    return bool((times < times[latest]).any())
