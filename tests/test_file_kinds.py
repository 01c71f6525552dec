"""Files that are no videos are told by name, and animated GIFs are videos."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vilamp.data.frame_reader import FrameReader
from vilamp.data.frames import FrameSettings
from vilamp.data.isolation import Budget
from vilamp.data.spool import Spool
from vilamp.decoders.auto import AutoDecoder
from vilamp.file_kinds import kind_of
from vilamp.probe import DecodeError, probe_video
from vilamp.samples import SkipSample
from vilamp.testing.barcodes import barcode, read_barcodes, write_video


def _bare_stream(form: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 160, 64, "yuv420p"
        for number in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(barcode(number))))
        container.mux(stream.encode())
    return file.getvalue()


def _picture(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, form)
    return file.getvalue()


def _gif(milliseconds: Sequence[int]) -> bytes:
    """Of as many pictures, each shown for so long."""
    first, *others = (Image.fromarray(barcode(number)) for number in range(len(milliseconds)))
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=list(milliseconds))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (_bare_stream("h264", "libx264"), "a bare video stream, which has no timestamps; ffmpeg -framerate 25 -i FILE"),
        (_bare_stream("m4v", "mpeg4"), "a bare video stream"),
        (_bare_stream("yuv4mpegpipe", "rawvideo"), "a video stream without a container; ffmpeg -i FILE FILE.mp4"),
        (_picture("JPEG"), "a picture"),
        (_picture("PNG"), "a picture"),
        (_picture("WEBP"), "a picture"),
        (b"\n<!DOCTYPE html>\n<title>404</title>", "a web page, as servers send one in place of a file"),
        (b'{"error": "not found"}', "a text, as servers send one"),
        (b"<?xml version='1.0'?><Error/>", "a text, as servers send one"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "`git lfs pull` fetches it"),
        (b"#EXTM3U\nhttp://localhost/video.ts\n", "a playlist, and what it names is never opened"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "a playlist"),
        (b"1\n00:00:01,000 --> 00:00:02,000\nhello\n", "a file of subtitles"),
        (b"PK\x03\x04" + bytes(100), "an archive; unpack it first"),
        (bytes(5000), "begins with nothing but zeros"),
        (b"", "an empty file"),
    ],
)  # fmt: skip
def test_what_is_no_video_is_called_what_it_is(content: bytes, told: str) -> None:
    with pytest.raises(DecodeError) as caught:
        probe_video(content)
    assert caught.value.kind == "unreadable"
    assert caught.value.cause.startswith("this is ") and told in caught.value.cause


def test_the_cover_of_a_song_is_no_video() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        cover, song = container.add_stream("mjpeg", rate=1), container.add_stream("aac", rate=8000)
        cover.width, cover.height, cover.pix_fmt = 160, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), dtype=np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        picture = av.VideoFrame.from_ndarray(barcode(1))
        for packets in (cover.encode(picture), cover.encode(), song.encode(silence), song.encode()):
            container.mux(packets)
    with pytest.raises(DecodeError, match="the file has a cover picture and no video"):
        probe_video(file.getvalue())


def test_a_damaged_container_is_no_bare_stream() -> None:
    assert kind_of(b"\0\0\x01\xba" + bytes(100)) == ""


@pytest.mark.parametrize(
    ("suffix", "cut", "told"), [("mp4", 0.5, "an mp4"), ("mkv", 0.05, "Matroska"), ("avi", 0.01, "an AVI")]
)
def test_the_beginning_of_a_video_is_told_from_what_is_none(suffix: str, cut: float, told: str) -> None:
    whole = write_video(list(range(40)), Fraction(1, 10), suffix=suffix)
    with pytest.raises(DecodeError, match=f"; the file begins as {told}, and is damaged or cut off: fetch or copy"):
        probe_video(whole[: int(cut * len(whole))])


def test_noise_is_not_given_a_name() -> None:
    with pytest.raises(DecodeError, match=r"^Invalid data found when processing input$"):
        probe_video(b"noise" * 100)


def _read(source: bytes, fps: float) -> tuple[list[int], list[float]]:
    decoded = FrameReader(AutoDecoder(), FrameSettings(fps, 100, 80), Budget(), Spool()).read(source, "x")
    assert isinstance(decoded.frames, np.ndarray)
    return read_barcodes(decoded.frames), decoded.timestamps.round(6).tolist()


def test_the_pictures_of_a_gif_are_shown_for_as_long_as_it_says() -> None:
    source = _gif([500, 100, 1000, 40, 200])
    assert _read(source, 100) == ([0, 1, 2, 3, 4], [0, 0.5, 0.6, 1.6, 1.64])
    assert _read(source, 1) == ([0, 2], [0, 0.6])
    assert probe_video(source).end == pytest.approx(1.84)


@pytest.mark.parametrize("left_out", [1, 400])
def test_a_gif_that_is_cut_off_is_noticed(left_out: int) -> None:
    source = _gif([100] * 20)
    with pytest.raises(SkipSample, match="the file is cut off behind frame"):
        _read(source[:-left_out], 10)
    assert _read(source + b"\0\r\n", 10)[0] == list(range(20))
