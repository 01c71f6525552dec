"""Damaged videos: every one is read or skipped with a reason, none ends the process or goes on for ever."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from tars import annotation, write_tar

from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.data.packing.check import Decoding, check_shards
from vilamp.data.sampling import ROUNDING
from vilamp.decoders.auto import AutoDecoder
from vilamp.decoders.decord import DecordDecoder
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.samples import SkipSample
from vilamp.testing.barcodes import write_video
from vilamp.testing.damage import damaged, outlive
from vilamp.video import VideoDecoder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """One small video in each kind of container."""
    ticks, base, options = [1001 * i for i in range(40)], Fraction(1, 30_000), {"g": "10"}
    return [
        write_video(ticks, base, options=options),
        write_video(ticks, base, options=options, folder=tmp_path_factory.mktemp("front"),
                    muxer={"movflags": "faststart"}),
        # bitexact: without a random number that names the file, so that a seed always makes the same damage.
        write_video(ticks, base, options=options, suffix="mkv", muxer={"fflags": "+bitexact"}),
        write_video(ticks, base, options=options, suffix="ts"),
        write_video(list(range(40)), Fraction(1, 30), options=options, suffix="avi"),
    ]  # fmt: skip


def _read_all(whole: list[bytes], seeds: range, last: Path) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        source = damaged(rng.choice(whole), rng)
        last.write_bytes(source)  # what to look at, should the process not survive
        try:
            video = VideoReader(AutoDecoder(), FrameSettings(5.0, 64, 32)).read(source, "clip")
        except SkipSample as skip:
            assert skip.reason in ("decode", "decode_memory")  # a damaged size may ask for more than there is
            outcomes["skipped"] += 1
        else:
            assert 1 <= len(video) <= 64
            assert video.frames.shape[1:] == (32, 32, 3)
            assert (video.timestamps.diff() > 0).all()
            assert 0 <= video.timestamps[0] <= ROUNDING
            outcomes["read"] += 1
    return outcomes


def test_damaged_videos(whole: list[bytes], tmp_path: Path) -> None:
    outcomes = _read_all(whole, range(250), tmp_path / "last")
    assert outcomes["skipped"] > 50 and outcomes["read"] > 50


def _found_and_skipped(whole: list[bytes], seeds: range, folder: Path) -> tuple[set[str], set[str]]:
    """Which damaged videos the check of a shard lists, and which a run would skip by one sampling or another."""
    sources = {}
    for seed in seeds:
        rng = random.Random(seed)
        sources[str(seed)] = damaged(rng.choice(whole), rng)
    members = [(f"{key}.{name}", content) for key, source in sources.items()
               for name, content in (("json", annotation()), ("mp4", source))]  # fmt: skip
    verdict = check_shards([str(write_tar(folder / "x.tar", members))], Decoding(PyAVDecoder, 600.0))
    samplings = [FrameSettings(5.0, 64, 32), FrameSettings(30.0, 64, 32), FrameSettings(5.0, 64, 32, "iframes")]
    skipped = set()
    for reader in (VideoReader(AutoDecoder(), settings) for settings in samplings):
        for key, source in sources.items():
            try:
                reader.read(source, key)
            except SkipSample:
                skipped.add(key)
    return {problem.key for problem in verdict.problems} - {""}, skipped


def test_the_check_finds_every_video_that_a_run_would_skip(whole: list[bytes], tmp_path: Path) -> None:
    found, skipped = _found_and_skipped(whole, range(120), tmp_path)
    assert skipped - found == set() and 40 < len(skipped) <= len(found) < 100


@pytest.mark.soak
def test_the_check_finds_every_one_of_many(whole: list[bytes], tmp_path: Path) -> None:
    found, skipped = _found_and_skipped(whole, range(120, 5000), tmp_path)
    assert skipped - found == set() and len(skipped) > 1000


@pytest.mark.soak
def test_many_damaged_videos(whole: list[bytes], tmp_path: Path) -> None:
    outcomes = _read_all(whole, range(250, 50_000), tmp_path / "last")
    assert outcomes["skipped"] > 10_000 and outcomes["read"] > 10_000


@pytest.mark.soak
@pytest.mark.parametrize("decoder", [AutoDecoder(), DecordDecoder(), PyAVDecoder()], ids=lambda decoder: decoder.name)
def test_thousands_of_damaged_mp4_end_no_process(whole: list[bytes], decoder: VideoDecoder) -> None:
    sources = []
    for seed in range(2000):
        rng = random.Random(seed)
        sources.append(damaged(rng.choice(whole[:2]), rng))
    assert outlive(decoder, sources) == []
