"""decord, but only where it is known to find the right frames."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from vilamp.errors import ConfigError
from vilamp.probe import KEYFRAME_UNITS, Probe, Source, open_source, translated
from vilamp.video import CHUNK, FrameChunk, UnsuitedError, VideoDecoder

CONTAINERS = ("mov",)
CODECS = ("h264", "hevc", "vp8", "vp9", "mpeg4")


def is_installed() -> bool:
    """Whether there is a decord; it has wheels for x86-64 Linux and for Windows."""
    return importlib.util.find_spec("decord") is not None


class DecordDecoder(VideoDecoder):
    """Refuses what decord is known to read wrongly.

    It hands out other frames, without an error, for transport streams and edit lists and around the keyframes of open
    GOPs.  A damaged Matroska file can make it end the process.

    Raises:
        ConfigError: decord is not installed.
    """

    name = "decord"

    def __init__(self) -> None:
        if not is_installed():
            raise ConfigError("decord is not installed (it has no wheel for some platforms); set decoder=pyav")

    def decode(self, source: Source, probe: Probe, times: np.ndarray, size: int) -> Iterator[FrameChunk]:
        """See :meth:`VideoDecoder.decode`."""
        require_suited(probe, size)
        indices = probe.on_display(times)
        reader = _opened(source, size)
        import decord

        with translated(decord.DECORDError, RuntimeError, MemoryError):
            shown = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=np.float64)
            # Its times are float32 and may be off by 2^-24 of their value.
            if len(shown) != len(probe.starts) or not np.allclose(shown[:, 0], probe.starts, rtol=2.0**-22, atol=1e-4):
                raise UnsuitedError("decord counts other frames than the container")
            for first in range(0, len(indices), CHUNK):
                part = slice(first, first + CHUNK)
                frames = reader.get_batch(indices[part].tolist()).asnumpy()
                ok = np.ones(len(frames), dtype=bool)
                yield FrameChunk(frames, times[part], probe.starts[indices[part]], ok, self.name)
            # Left where it is, the reader goes on decoding ahead into memory.
            reader.seek(0)


def require_suited(probe: Probe, size: int) -> None:
    """Raise UnsuitedError for what decord is known to read wrongly, or not at all."""
    if not decord_can_be(size):
        raise UnsuitedError(f"decord cannot hand out frames {size} pixels wide")
    if probe.container.split(",")[0] not in CONTAINERS or probe.codec not in CODECS or probe.open_gop:
        raise UnsuitedError(f"decord is not trusted with {probe.codec} in {probe.container}, or with an open GOP")
    if probe.codec in KEYFRAME_UNITS and len(probe.entries) < len(probe.keyframes):
        # It begins at keyframes from which a picture only recovers after a while (intra refresh).
        raise UnsuitedError("decord is not trusted with keyframes that refer to frames before them")
    if probe.declared not in (0, len(probe.pts)):
        # It reserves memory for what is declared, and where that fails it ends the process.
        raise UnsuitedError(f"decord is not trusted where {len(probe.pts)} of {probe.declared} frames are there")
    if probe.damage:
        raise UnsuitedError(f"decord is not trusted with a damaged file: {probe.damage}")


def _opened(source: Source, size: int) -> Any:
    import decord

    # Errors come back as exceptions and are counted; FFmpeg's own lines would only tear the progress bar.
    decord.logging.set_level(decord.logging.QUIET)
    with open_source(source) as file:
        try:
            return decord.VideoReader(io.BytesIO(file.read()), width=size, height=size, num_threads=1)
        except (decord.DECORDError, RuntimeError) as error:
            # Its FFmpeg is older than PyAV's, and refuses more.
            raise UnsuitedError("decord cannot open the file") from error


def decord_can_be(width: int) -> bool:
    """Whether decord can scale to this many pixels.

    Its filter widens rows of 3 bytes a pixel until they fill whole 32-byte words.  Where the wide row happens to be a
    multiple of the width, decord takes the quotient for the number of channels: 4 at a width of 48, and an error.
    """
    step = 1
    while (row := -(-width // step) * step * 3) % 32:
        step *= 2
    return row == 3 * width or row % width != 0
