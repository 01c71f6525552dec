"""Videos whose every frame carries its number, so that a test can tell which frame it was given."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 10
WIDTH, HEIGHT = 160, 64

Draw = Callable[[int, int, int], np.ndarray]
"""(number, width, height) -> uint8[height, width, 3]."""


def barcode(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8[height, width, 3]: one white or black column for each bit, the lowest at the left."""
    bits = 255 * (number >> np.arange(BITS) & 1)
    return np.broadcast_to(bits[np.arange(width) * BITS // width, None], (height, width, 3)).astype(np.uint8)


def quarters(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8[height, width, 3]: red, green, blue and white, in the order of reading; the same for all numbers."""
    colours = np.array([[[230, 20, 20], [20, 200, 20]], [[20, 20, 230], [230, 230, 230]]], dtype=np.uint8)
    return colours[np.arange(height) * 2 // height][:, np.arange(width) * 2 // width]


def read_barcodes(frames: np.ndarray) -> list[int]:
    """The numbers on uint8[n, S, S, 3] frames of any size."""
    middles = ((np.arange(BITS) + 0.5) * frames.shape[2] / BITS).astype(int)
    bits = frames.mean(axis=(1, 3))[:, middles] > 127
    return [int((row << np.arange(BITS)).sum()) for row in bits.astype(int)]


def write_video(
    ticks: Sequence[int], time_base: Fraction, *, suffix: str = "mp4", options: dict[str, str] | None = None,
    folder: Path | None = None, muxer: dict[str, str] | None = None, codec: str = "libx264",
    size: tuple[int, int] = (WIDTH, HEIGHT), pixels: str = "yuv420p", quarter_turns: int = 0,
    draw: Draw = barcode,
) -> bytes:  # fmt: skip
    """A video whose i-th frame shows the number i and starts at ``ticks[i] * time_base`` seconds.

    Args:
        ticks: ascending.
        time_base: seconds of a tick.
        suffix: which container.
        options: of the encoder.
        folder: where the file is written, for muxers that must seek and read again; None: in memory.
        muxer: its options.
        codec: an encoder of FFmpeg.
        size: width and height.
        pixels: the format in which they are stored.
        quarter_turns: by so many the stored pictures are turned anticlockwise; the container does not say so by itself.
        draw: makes the pictures.
    """
    if codec == "libx264":
        options = {"preset": "veryfast", "threads": "1"} | (options or {})
    target: io.BytesIO | str = io.BytesIO() if folder is None else str(folder / f"video.{suffix}")
    name = {"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg"}.get(suffix, suffix)
    with _own_scheduling(), av.open(target, "w", format=name, options=muxer or {}) as container:
        stream: Any = container.add_stream(codec, options=options or {})
        stream.width, stream.height = size if quarter_turns % 2 == 0 else size[::-1]
        stream.pix_fmt = pixels
        stream.time_base = stream.codec_context.time_base = time_base
        for number, tick in enumerate(ticks):
            picture = np.ascontiguousarray(np.rot90(draw(number, *size), quarter_turns))
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue() if isinstance(target, io.BytesIO) else Path(target).read_bytes()


@contextmanager
def _own_scheduling() -> Iterator[None]:
    """Within this, an encoder may change how this thread is scheduled, and behind it that is as before.

    SVT-AV1 puts whoever opens it under real-time scheduling where it may (as root), and leaves it there: from then on
    what loops without an end, as tests of decoders let it, takes a core from everything else on the machine.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)
