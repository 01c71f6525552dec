"""The decoder's conformance kit over our decoders, and broken decoders that it must catch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vilamp.decoders.auto import AutoDecoder
from vilamp.decoders.decord import DecordDecoder
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.decoders.torchcodec import TorchCodecDecoder
from vilamp.errors import ConfigError
from vilamp.testing import check_decoder, decoder_checks, decoders
from vilamp.testing.clips import clips
from vilamp.video import FrameChunk, UnsuitedError, VideoDecoder

CHECKS = {check.name: check for check in decoder_checks()}
DECODERS: list[type[VideoDecoder]] = [AutoDecoder, DecordDecoder, PyAVDecoder]


def _torchcodec_works() -> bool:
    try:
        TorchCodecDecoder()
    except ConfigError:
        return False
    return True


WORKS = _torchcodec_works()
if WORKS:
    DECODERS.append(TorchCodecDecoder)


@pytest.mark.parametrize("check", CHECKS.values(), ids=str)
@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_contract(decoder, check) -> None:
    check(decoder)


@pytest.mark.skipif(WORKS, reason="torchcodec works here, and is checked as the others")
def test_torchcodec_says_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match=r"decoder=torchcodec needs pip install .*\[torchcodec\].* FFmpeg libraries"):
        TorchCodecDecoder()


def test_the_kinds_of_video_that_the_encoders_here_can_make_are_all_there() -> None:
    names = {clip.name for clip in clips()}
    assert {"29.97 frames a second", "edit list", "open GOP", "transport stream", "fragmented mp4", "odd size"} <= names
    assert len(names) == len(clips()) >= 30


class Broken(PyAVDecoder):
    """PyAV with one thing changed."""

    def decode(self, source, probe, times, size) -> Iterator[FrameChunk]:
        for chunk in super().decode(source, probe, times, size):
            yield from self.change(chunk)

    def change(self, chunk: FrameChunk) -> Iterator[FrameChunk]:
        yield chunk


class ByAverageRate(Broken):
    """Takes frame k * N / duration for the one at second k."""

    def decode(self, source, probe, times, size):
        rate = (len(probe.starts) - 1) / max(probe.starts[-1], 1e-9)
        indices = np.clip(np.round(times * rate).astype(int), 0, len(probe.starts) - 1)
        chunks = super().decode(source, probe, probe.starts[indices], size)
        done = 0
        for chunk in chunks:
            yield replace(chunk, asked=times[done : done + len(chunk)])
            done += len(chunk)


class NextFrame(Broken):
    def decode(self, source, probe, times, size):
        later = probe.starts[np.minimum(probe.on_display(times) + 1, len(probe.starts) - 1)]
        for chunk, at in zip(super().decode(source, probe, later, size), np.array_split(times, 1), strict=False):
            yield replace(chunk, asked=at[: len(chunk)])


class Lying(Broken):
    """Everything is said to be right."""

    def change(self, chunk):
        yield replace(chunk, ok=np.ones(len(chunk), dtype=bool))


class Hasty(Broken):
    def change(self, chunk):
        if len(chunk) > 1:
            yield replace(chunk, frames=chunk.frames[:-1], asked=chunk.asked[:-1], got=chunk.got[:-1], ok=chunk.ok[:-1])
        else:
            yield chunk


class Floats(Broken):
    def change(self, chunk):
        yield replace(chunk, frames=chunk.frames / 255)


class Renumbered(Broken):
    """Tells the time that was asked for as the one that was got."""

    def change(self, chunk):
        yield replace(chunk, got=chunk.asked + 0.01)


class Nameless(Broken):
    name = ""


class BlueFirst(Broken):
    def change(self, chunk):
        yield replace(chunk, frames=np.ascontiguousarray(chunk.frames[..., ::-1]))


class UpsideDown(Broken):
    def change(self, chunk):
        yield replace(chunk, frames=np.ascontiguousarray(chunk.frames[:, ::-1]))


class Mirrored(BlueFirst):
    """Also tells wrong times of videos whose frames are unlike each other in length."""

    def decode(self, source, probe, times, size):
        for chunk in super().decode(source, probe, times, size):
            uneven = len(probe.starts) > 1 and np.ptp(np.diff(probe.starts)) > 0.01
            yield replace(chunk, got=chunk.got + 0.01) if uneven else chunk


class Choosy(Broken):
    def decode(self, source, probe, times, size):
        raise UnsuitedError("not today")
        yield


class Attached(Broken):
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        self.opened = lambda: None


class Foreign(Broken):
    """Raises errors of its library."""

    def probe(self, source):
        try:
            return super().probe(source)
        except Exception as error:
            raise OSError("bad file") from error


class Aborting(Broken):
    """Ends the process where the file is damaged."""

    def probe(self, source):
        try:
            return super().probe(source)
        except Exception:
            os.abort()


class Forgetful(Broken):
    """Reads the first video for ever."""

    kept: bytes | None = None

    def decode(self, source, probe, times, size):
        if self.kept is None:
            self.kept = source
        yield from super().decode(self.kept, self.probe(self.kept), times, size)


class Shrinking(Broken):
    """Knows bytes alone."""

    def decode(self, source, probe, times, size):
        if not isinstance(source, bytes):
            source = Path(source.path).read_bytes()
        yield from super().decode(source, probe, times, size)


class OneSize(Broken):
    def decode(self, source, probe, times, size):
        yield from super().decode(source, probe, times, 80)


class Bare:
    name = "bare"


CAUGHT: list[tuple[Callable[[], object], str]] = [
    (Bare, "is_a_decoder"),
    (Nameless, "is_a_decoder"),
    (ByAverageRate, "right_frames: variable rate"),
    (NextFrame, "right_frames: constant rate"),
    (Renumbered, "right_frames: constant rate"),
    (Hasty, "right_frames: constant rate"),
    (Floats, "right_frames: constant rate"),
    (Choosy, "right_frames: constant rate"),
    (Attached, "goes_to_another_process"),
    (Forgetful, "reads_many_videos_one_after_the_other"),
    (Shrinking, "reads_a_part_of_a_file"),
    (OneSize, "any_size"),
    (BlueFirst, "upright_and_rgb"),
    (UpsideDown, "upright_and_rgb"),
    (Lying, "what_cannot_be_decoded_is_told"),
    (Foreign, "what_is_no_video_is_an_error"),
    (Foreign, "damage_ends_no_process"),
    (Aborting, "damage_ends_no_process"),
]


@pytest.mark.parametrize(("broken", "rule"), CAUGHT, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_decoder_is_caught(broken, rule: str) -> None:
    with pytest.raises(AssertionError, match=rf"^{broken.__name__} breaks the rule {rule} "):
        CHECKS[rule](broken)


def test_every_rule_catches_something() -> None:
    rules = {name for name in CHECKS if not name.startswith("right_frames")}
    assert rules == {rule for _, rule in CAUGHT if not rule.startswith("right_frames")}


def test_all_broken_rules_are_listed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    some = {"constant rate", "faststart mp4", "transport stream", "AVI", "variable rate"}
    monkeypatch.setattr(decoders, "clips", lambda: [clip for clip in clips() if clip.name in some])
    with pytest.raises(AssertionError, match=r"2 of \d+ rules are broken:\n- Mirrored breaks.*\n- Mirrored breaks"):
        check_decoder(Mirrored)
