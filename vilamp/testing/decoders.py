"""The rules of :class:`~vilamp.video.VideoDecoder` as checks."""

from __future__ import annotations

import functools
import io
import pickle
import random
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vilamp.probe import DecodeError, FileRange, Source
from vilamp.testing.barcodes import barcode, quarters, read_barcodes, write_video
from vilamp.testing.clips import Clip, clips
from vilamp.testing.damage import damaged, flaw_of, outlive
from vilamp.testing.kit import Check, Make, as_checks, factory, require, run_all
from vilamp.video import FrameChunk, UnsuitedError, VideoDecoder

SIZE = 80
DAMAGED_FILES = 60
PLAIN = "constant rate"
"""The clip that every decoder must read: H.264 in mp4."""

Build = Callable[[], VideoDecoder]
Rule = Callable[[Build], None]
_RULES: list[Rule] = []


def _rule(function: Rule) -> Rule:
    _RULES.append(function)
    return function


def decoder_checks() -> list[Check]:
    """All checks, for pytest's ``parametrize``: the rules, and that the frames of each test video are right."""
    return as_checks(_RULES, factory) + [_clip_check(clip) for clip in clips()]


def check_decoder(make: Make) -> None:
    """Check every rule of :class:`~vilamp.video.VideoDecoder`, with test videos that carry their frames' numbers.

    A video that the decoder refuses with an :class:`~vilamp.video.UnsuitedError` passes, but not plain H.264 in mp4.

    Args:
        make: the class, a function that builds a decoder, or a decoder.

    Raises:
        AssertionError: lists the rules that are broken, each with what was seen.
    """
    run_all(decoder_checks(), make)


def _clip_check(clip: Clip) -> Check:
    def run(make: Make) -> None:
        decoder = factory(make)()
        probe = decoder.probe(clip.source)
        require(
            len(probe.starts) == len(clip.starts) and np.allclose(probe.starts, clip.starts, atol=1e-4),
            f"probe found {len(probe.starts)} frames, at {probe.starts[:5].round(4)} ...; "
            f"there are {len(clip.starts)}, at {clip.starts[:5].round(4)} ...",
        )
        for case, indices in _plans(len(clip.starts)).items():
            try:
                require_right(decoder, clip, indices, case)
            except UnsuitedError:
                require(clip.name != PLAIN, f"{case}: plain H.264 in mp4 is refused")

    return Check(f"right_frames: {clip}", f"The frames on display are found in the video '{clip}'.", run)


def _plans(count: int) -> dict[str, np.ndarray]:
    draw = np.sort(np.random.default_rng(0).permutation(count)[: max(count // 8, 1)])
    return {
        "all frames": np.arange(count),
        "every seventh frame": np.arange(0, count, 7),
        "some frames": draw,
        "the last frame": np.array([count - 1]),
    }


def require_right(decoder: VideoDecoder, clip: Clip, indices: np.ndarray, case: str) -> None:
    """The frames with these positions come, each asked for at a time at which it is on display."""
    starts = decoder.probe(clip.source).starts
    times = starts[indices] + 0.4 * np.append(np.diff(starts), 0.0)[indices]
    frames, ok, got = _joined(_chunks(decoder, clip.source, times))
    require(bool(ok.all()), f"{case}: not ok are the frames {indices[~ok].tolist()}")
    require(bool(np.allclose(got, starts[indices], rtol=0, atol=1e-4)), f"{case}: got says {got[:5]} ...")
    numbers, wanted = read_barcodes(frames), [clip.numbers[i] for i in indices]
    wrong = [f"{n} instead of {w}" for n, w in zip(numbers, wanted, strict=True) if n != w]
    require(not wrong, f"{case}: {len(wrong)} of {len(wanted)} frames are wrong: {', '.join(wrong[:5])}")


def _chunks(decoder: VideoDecoder, source: Source, times: np.ndarray, size: int = SIZE) -> list[FrameChunk]:
    """All chunks for these times, in the right form and without a time left out."""
    asked = times.copy()
    chunks = []
    for chunk in decoder.decode(source, decoder.probe(source), times, size):
        flaw = flaw_of(chunk, size)
        require(not flaw, flaw)
        chunks.append(chunk)
    require(np.array_equal(times, asked), "the times were changed in place")
    answered = np.concatenate([np.zeros(0), *(chunk.asked for chunk in chunks)])
    require(np.array_equal(answered, times), f"asked says {answered[:5]} ..., but {times[:5]} ... were asked for")
    return chunks


def _joined(chunks: list[FrameChunk]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """frames, ok and got of all chunks."""
    frames, ok, got = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("frames", "ok", "got"))
    return frames, ok, got


def _clip(name: str) -> Clip:
    return next(clip for clip in clips() if clip.name == name)


def _other() -> Clip:
    """As the plain one, but with other numbers on its frames."""
    source = write_video(
        [512 * i for i in range(120)], Fraction(1, 12_800), draw=lambda number, *size: barcode(number + 500, *size)
    )
    return Clip("other numbers", lambda: source, "libx264", range(500, 620), np.arange(120) / 25)


@_rule
def is_a_decoder(build: Build) -> None:
    """It is a VideoDecoder with a name."""
    decoder = build()
    require(isinstance(decoder, VideoDecoder), f"a {type(decoder).__name__} is no VideoDecoder")
    require(isinstance(getattr(decoder, "name", None), str) and bool(decoder.name), "it has no name")


@_rule
def goes_to_another_process(build: Build) -> None:
    """It can be pickled, and the copy reads the same frames."""
    copy, clip = pickle.loads(pickle.dumps(build())), _clip(PLAIN)
    require_right(copy, clip, np.arange(0, 120, 7), "a copy")


@_rule
def reads_many_videos_one_after_the_other(build: Build) -> None:
    """What was read before, and was perhaps not read to its end, changes nothing."""
    decoder, first, second = build(), _clip(PLAIN), _other()
    for _ in range(2):
        require_right(decoder, first, np.arange(0, 120, 9), "again")
        rest = decoder.decode(second.source, decoder.probe(second.source), second.starts, SIZE)
        next(rest)
        del rest
        require_right(decoder, second, np.arange(100, 120), "after a part")


@_rule
def reads_a_part_of_a_file(build: Build) -> None:
    """A FileRange gives the frames that its bytes give."""
    decoder, source = build(), _clip(PLAIN).source
    times = _clip(PLAIN).starts[::7]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "shard.tar"
        file.write_bytes(b"\1" * 777 + source + b"\2" * 999)
        there, _, _ = _joined(_chunks(decoder, FileRange(str(file), 777, len(source)), times))
    here, _, _ = _joined(_chunks(decoder, source, times))
    require(np.array_equal(there, here), "the frames differ")


@_rule
def any_size(build: Build) -> None:
    """Frames are size x size, whatever the size is; one that it cannot make is refused with an UnsuitedError."""
    decoder, clip = build(), _clip(PLAIN)
    for size in (16, 32, 48, 96, 100, 224, 384):
        try:
            frames, _, _ = _joined(_chunks(decoder, clip.source, clip.starts[::20], size))
        except UnsuitedError:
            continue
        require(size < 32 or read_barcodes(frames) == list(range(0, 120, 20)), f"size {size}: other frames")


@_rule
def upright_and_rgb(build: Build) -> None:
    """Pictures are upright, not mirrored, not cropped, and their colours are red, green, blue in this order."""
    decoder = build()
    source = write_video([512 * i for i in range(8)], Fraction(1, 12_800), draw=quarters)
    (frame, *_), _, _ = _joined(_chunks(decoder, source, np.zeros(1)))
    half, wanted = SIZE // 2, quarters(0, 2, 2)
    for row, column in np.ndindex(2, 2):
        seen = frame[row * half : (row + 1) * half, column * half : (column + 1) * half]
        seen = seen[5:-5, 5:-5].mean(axis=(0, 1)).round()
        require(
            bool(np.abs(seen - wanted[row, column]).max() < 60),
            f"the quarter in row {row} and column {column} is {seen.tolist()}, not {wanted[row, column].tolist()}",
        )


@_rule
def what_is_no_video_is_an_error(build: Build) -> None:
    """A file that is no video, or has none, is a DecodeError of probe."""
    for source in (b"", b"no video", bytes(10_000), b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"):
        try:
            build().probe(source)
        except DecodeError:
            continue
        raise AssertionError(f"no error for {source[:20]!r}")


@_rule
def what_cannot_be_decoded_is_told(build: Build) -> None:
    """Of a file with a wiped stretch, or cut off, every frame is the right one, or not ok; or it is a DecodeError."""
    for case, source in _with_losses().items():
        decoder = build()
        try:
            probe = decoder.probe(source)
            frames, ok, got = _joined(_chunks(decoder, source, probe.starts))
        except DecodeError:
            continue
        numbers = np.array(read_barcodes(frames))
        shown = np.round(got * 25)
        wrong = np.flatnonzero(ok & (numbers != shown)).tolist()
        require(not wrong, f"{case}: {len(wrong)} wrong frames are said to be right, for example {wrong[:5]}")


@functools.cache
def _with_losses() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        source = write_video(
            [512 * i for i in range(100)], Fraction(1, 12_800), options={"g": "20", "bf": "0"},
            folder=Path(folder), muxer={"movflags": "faststart"},
        )  # fmt: skip
    with av.open(io.BytesIO(source)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    cases = {f"cut off behind frame {i}": source[: places[i][0]] for i in (1, 30, 99)}
    cases |= {f"cut off within frame {i}": source[: places[i][0] + places[i][1] // 2] for i in (30, 99)}
    for i in (30, 40):
        place, size = places[i]
        cases[f"frame {i} wiped"] = source[:place] + bytes(size) + source[place + size :]
    return cases


@_rule
def damage_ends_no_process(build: Build) -> None:
    """A damaged file is read or is a DecodeError: no other error, no crash, no hang."""
    rng = random.Random(0)
    whole = [_clip(name).source for name in (PLAIN, "faststart mp4", "transport stream", "AVI")]
    flaws = outlive(build(), [damaged(rng.choice(whole), rng) for _ in range(DAMAGED_FILES)])
    require(not flaws, "; ".join(flaws[:5]))
