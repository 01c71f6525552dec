"""The pixels of chosen frames: one contract, two libraries behind it."""

from __future__ import annotations

import functools
import importlib.util
import io
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator

import av
import numpy as np

from vilamp.data.probe import DecodeError, Probe, demux, open_container, translated

log = logging.getLogger(__name__)

CHUNK = 64
"""Frames decoded at once; an hour in one piece takes gigabytes."""


class UnsuitedError(Exception):
    """The decoder is known to read this video wrongly; another should."""


class VideoDecoder(ABC):
    """Reads chosen frames of one video, scaled to ``size`` x ``size`` pixels."""

    name: str

    @abstractmethod
    def decode(self, source: bytes, probe: Probe, indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """Yield the frames in order, in chunks uint8[c, size, size, 3], RGB, c <= :data:`CHUNK`.

        Args:
            source: the file.
            probe: what is known of it.
            indices: int64[n], ascending and unique positions in ``probe.pts``.
            size: height and width of the frames, in pixels.

        Raises:
            UnsuitedError: before the first chunk only.
            DecodeError: the video is damaged.
        """


class PyAVDecoder(VideoDecoder):
    """Decodes from the beginning and keeps what is wanted; right for every file that FFmpeg reads."""

    name = "pyav"

    def decode(self, source: bytes, probe: Probe, indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """See :meth:`VideoDecoder.decode`."""
        remaining = deque(indices.tolist() if probe.by_rank else probe.pts[indices].tolist())
        chunk: list[np.ndarray] = []
        with translated(av.FFmpegError), open_container(source) as container:
            packets = demux(container, container.streams.best("video"))
            for rank, frame in enumerate(frame for packet in packets for frame in packet.decode()):
                name = rank if probe.by_rank else frame.pts if frame.pts is not None else frame.dts
                # Frames come in the order in which they are shown.  Where they do not, the timestamps are on the wrong
                # ones, and this one is missing too.
                if name is None or name < remaining[0]:
                    continue
                if name > remaining[0] or frame.is_corrupt:
                    second = probe.starts[indices[-len(remaining)]]
                    raise DecodeError(f"the frame at {second:.3f} s cannot be decoded")
                remaining.popleft()
                picture = frame.to_ndarray(format="rgb24", width=size, height=size, interpolation="BICUBIC")
                # The picture is square by now, so that turning it is the same as turning it before scaling.
                chunk.append(np.rot90(picture, round(frame.rotation / 90)))
                if len(chunk) == CHUNK or not remaining:
                    yield np.stack(chunk)
                    chunk = []
                if not remaining:
                    return


class DecordDecoder(VideoDecoder):
    """decord, but only where it is known to find the right frames.

    It hands out others, without an error, for transport streams and edit lists and around the keyframes of open GOPs.
    A damaged Matroska file can make it end the process.
    """

    name = "decord"
    CONTAINERS = ("mov",)
    CODECS = ("h264", "hevc", "vp8", "vp9", "mpeg4")

    def decode(self, source: bytes, probe: Probe, indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """See :meth:`VideoDecoder.decode`."""
        import decord

        if not decord_can_be(size):
            raise UnsuitedError(f"decord cannot hand out frames {size} pixels wide")
        if probe.container.split(",")[0] not in self.CONTAINERS or probe.codec not in self.CODECS or probe.open_gop:
            raise UnsuitedError(f"decord is not trusted with {probe.codec} in {probe.container}, or with an open GOP")
        if probe.declared not in (0, len(probe.pts)):
            # It reserves memory for what is declared, and where that fails it ends the process.
            raise UnsuitedError(f"decord is not trusted where {len(probe.pts)} of {probe.declared} frames are there")
        try:
            reader = decord.VideoReader(io.BytesIO(source), width=size, height=size, num_threads=1)
        except (decord.DECORDError, RuntimeError) as error:
            # Its FFmpeg is older than PyAV's, and refuses more.
            raise UnsuitedError("decord cannot open the file") from error
        with translated(decord.DECORDError, RuntimeError):
            times = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=np.float64)
            # Its times are float32 and may be off by 2^-24 of their value.
            if len(times) != len(probe.starts) or not np.allclose(times[:, 0], probe.starts, rtol=2.0**-22, atol=1e-4):
                raise UnsuitedError("decord counts other frames than the container")
            for first in range(0, len(indices), CHUNK):
                yield reader.get_batch(indices[first : first + CHUNK].tolist()).asnumpy()
            # Left where it is, the reader goes on decoding ahead into memory.
            reader.seek(0)


def decord_can_be(width: int) -> bool:
    """Whether decord can scale to this many pixels.

    Its filter widens rows of 3 bytes a pixel until they fill whole 32-byte words.  Where the wide row happens to be a
    multiple of the width, decord takes the quotient for the number of channels: 4 at a width of 48, and an error.
    """
    step = 1
    while (row := -(-width // step) * step * 3) % 32:
        step *= 2
    return row == 3 * width or row % width != 0


@functools.cache
def decoders() -> tuple[VideoDecoder, ...]:
    """The decoders of this installation, the one to try first in front; says once where decord is missing."""
    if importlib.util.find_spec("decord") is None:
        log.warning("decord is not installed (it has no wheel for some platforms): PyAV decodes the videos")
        return (PyAVDecoder(),)
    import decord

    # Errors come back as exceptions and are counted; FFmpeg's own lines would only tear the progress bar.
    decord.logging.set_level(decord.logging.QUIET)
    return (DecordDecoder(), PyAVDecoder())
