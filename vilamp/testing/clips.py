"""The videos that decoders are checked with: every kind that libraries are known to read wrongly, and plain ones."""

from __future__ import annotations

import functools
import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vilamp.testing.barcodes import write_video

Encode = Callable[[], bytes]
_ONE = 1 << 16
_TURNED = {1: (0, _ONE, -_ONE, 0), 2: (-_ONE, 0, 0, -_ONE), 3: (0, -_ONE, _ONE, 0)}
"""The four corners of a track's matrix (ISO/IEC 14496-12) by clockwise quarter turns."""


@dataclass(frozen=True)
class Clip:
    """One video, and what stands in it.

    Attributes:
        name: what is special about it.
        encode: makes the file.
        encoder: which encoder of FFmpeg it needs.
        numbers: of the frames that are shown, in order.
        starts: float64[F], when each comes on display, in seconds from the first one.
    """

    name: str
    encode: Encode
    encoder: str
    numbers: Sequence[int]
    starts: np.ndarray

    def __str__(self) -> str:
        return self.name

    @functools.cached_property
    def source(self) -> bytes:
        """The file; made once."""
        return self.encode()


def turn(source: bytes, quarter_turns: int) -> bytes:
    """The mp4 whose track says that it is to be shown so many quarter turns clockwise."""
    place = source.index(b"tkhd") + 4 + 40
    a, b, c, d = _TURNED[quarter_turns]
    return source[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + source[place + 36 :]


def cut_begin(source: bytes, media_time: int) -> bytes:
    """The mp4 with its edit list beginning at another tick of its media."""
    place = source.index(b"elst") + 4 + 4 + 4 + 4
    return source[:place] + struct.pack(">i", media_time) + source[place + 4 :]


def clips() -> list[Clip]:
    """All videos whose encoder this PyAV has."""
    return [clip for clip in _all() if clip.encoder in av.codec.codecs_available]


@functools.cache
def _all() -> tuple[Clip, ...]:
    variable = np.cumsum([0, *np.random.default_rng(0).integers(10, 400, 99)]).tolist()
    ntsc, milliseconds, tv = Fraction(1, 30_000), Fraction(1, 1000), Fraction(1, 90_000)
    steady, slow = [512 * i for i in range(120)], Fraction(1, 12_800)  # 25 frames a second
    pyramid = {"g": "12", "x264-params": "bframes=3:b-adapt=0:b-pyramid=normal:scenecut=0"}
    open_gop = {"g": "12", "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}
    shown_from = 19  # media time 21 frames; the first frame is shown two late, to leave room for reordering
    edit = functools.partial(write_video, [512 * i for i in range(60)], Fraction(1, 15_360))
    av1 = {"preset": "10", "svtav1-params": "lp=1"}
    return (
        _clip("constant rate", steady, slow),
        _clip("29.97 frames a second", [1001 * i for i in range(120)], ntsc),
        _clip("half a frame a second", [2 * i for i in range(20)], Fraction(1, 1)),
        _clip("variable rate", variable, milliseconds),
        _clip("variable rate in Matroska", variable, milliseconds, suffix="mkv"),
        _clip("one frame", [0], slow),
        _clip("first timestamp not zero", [45_000 + tick for tick in steady], slow),
        _clip("first timestamp not zero in Matroska", [7_000 + 40 * i for i in range(120)], milliseconds, suffix="mkv"),
        _clip("B-frames", steady, slow, options=pyramid),
        _clip("many short GOPs", [512 * i for i in range(400)], slow, options={"g": "10"}),
        _clip("one long GOP", [512 * i for i in range(400)], slow, options={"g": "400"}),
        _clip("all keyframes", steady, slow, options={"g": "1"}),
        _clip("open GOP", steady, slow, options=open_gop),
        _clip("open GOP in Matroska", [40 * i for i in range(120)], milliseconds, suffix="mkv", options=open_gop),
        _clip("intra refresh", steady, slow, options={"g": "20", "x264-params": "intra-refresh=1:bframes=0"}),
        _clip("interlaced", steady, slow, options={"g": "12", "x264-params": "tff=1"}),
        _clip("many slices", steady, slow, options={"g": "12", "x264-params": "slices=4"}),
        Clip("edit list", lambda: cut_begin(edit(options={"bf": "2", "g": "60"}), 512 * 21), "libx264",
             range(shown_from, 60), np.arange(60 - shown_from) / 30),
        _clip("transport stream", [3600 * i for i in range(120)], tv, suffix="ts"),
        _clip("transport stream, first timestamp not zero", [900_000 + 3600 * i for i in range(120)], tv, suffix="ts"),
        _clip("fragmented mp4", steady, slow, muxer={"movflags": "frag_keyframe+empty_moov"}, options={"g": "25"}),
        _clip("faststart mp4", steady, slow, muxer={"movflags": "faststart"}, on_disk=True),
        _clip("QuickTime", steady, slow, suffix="mov"),
        _clip("AVI", list(range(100)), Fraction(1, 25), suffix="avi", options=pyramid),
        *(_clip(f"turned by {90 * turns} degrees", steady, slow, quarter_turns=turns) for turns in (1, 2, 3)),
        _clip("odd size", steady, slow, size=(163, 67), pixels="yuv444p"),
        _clip("odd size of half the colours", list(range(100)), Fraction(1, 25), size=(163, 67), codec="mpeg4"),
        _clip("10 bits", steady, slow, pixels="yuv420p10le"),
        _clip("MPEG-4 part 2", list(range(100)), Fraction(1, 25), codec="mpeg4", options={"bf": "2", "g": "12"}),
        _clip("MPEG-2", [3600 * i for i in range(100)], tv, suffix="ts", codec="mpeg2video",
              options={"bf": "2", "g": "12", "b": "2000000"}, base=Fraction(1, 25), encoded=list(range(100))),
        _clip("HEVC", steady, slow, codec="libx265", options=_x265("open-gop=0")),
        _clip("HEVC, open GOP", steady, slow, codec="libx265", options=_x265("open-gop=1")),
        _clip("VP8", [40 * i for i in range(100)], milliseconds, suffix="webm", codec="libvpx",
              options={"g": "25", "deadline": "realtime", "cpu-used": "8"}),
        _clip("VP9", [40 * i for i in range(100)], milliseconds, suffix="webm", codec="libvpx-vp9",
              options={"g": "25", "deadline": "realtime", "cpu-used": "8"}),
        _clip("VP9 in mp4", steady, slow, codec="libvpx-vp9",
              options={"g": "25", "deadline": "realtime", "cpu-used": "8"}),
        _clip("AV1", [3600 * i for i in range(60)], tv, codec="libsvtav1", options=av1 | {"g": "20"}),
    )  # fmt: skip


def _x265(parameters: str) -> dict[str, str]:
    steady = "log-level=none:pools=none:frame-threads=1:bframes=3:b-adapt=0:keyint=25"
    return {"preset": "ultrafast", "x265-params": f"{steady}:{parameters}"}


def _clip(
    name: str, ticks: Sequence[int], time_base: Fraction, *, on_disk: bool = False, quarter_turns: int = 0,
    base: Fraction | None = None, encoded: Sequence[int] | None = None, **writing: Any,
) -> Clip:  # fmt: skip
    """A clip that shows all its frames.

    ``encoded`` are its ticks in units of ``base`` for an encoder that takes frame rates only.
    """
    ticks, time_base = (encoded, base) if encoded is not None and base is not None else (ticks, time_base)

    def encode() -> bytes:
        os.environ.setdefault("SVT_LOG", "0")  # else it tells of itself on stderr
        with tempfile.TemporaryDirectory() as folder:
            source = write_video(
                ticks, time_base, folder=Path(folder) if on_disk else None, quarter_turns=quarter_turns, **writing
            )
        return turn(source, quarter_turns) if quarter_turns else source

    starts = np.array([float((tick - ticks[0]) * time_base) for tick in ticks])
    return Clip(name, encode, writing.get("codec", "libx264"), range(len(ticks)), starts)
