"""From the index to batches: everything that was asked for is in a batch or counted as skipped."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tars import annotation, write_tar

from vilamp.data.dataset import Collate, LoadedSample, VideoDataset, questions_of_epoch
from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.data.order import Place
from vilamp.data.shards import index_shard
from vilamp.decoders.auto import AutoDecoder
from vilamp.samples import Batch, EncodedQuestion, Question, Skip, SkipSample
from vilamp.testing.barcodes import read_barcodes, write_video

READER = VideoReader(AutoDecoder(), FrameSettings(fps=1.0, max_frames=16, size=80))


def encode(question: Question, key: str, has_video: bool, seed: int) -> EncodedQuestion:
    """Stands in for the model's: one token a character, and a context of 40."""
    if len(question.question) > 40:
        raise SkipSample("too_long", f"{len(question.question)} tokens, 40 fit")
    ids = torch.tensor([ord(letter) for letter in question.question])
    return EncodedQuestion(key, question, ids if has_video else ids[:0], ids, ids, seed)


@pytest.fixture(scope="module")
def clips() -> dict[int, bytes]:
    """Videos of 2, 3 and 5 seconds, a frame a second."""
    return {seconds: write_video(list(range(seconds)), Fraction(1, 1)) for seconds in (2, 3, 5)}


def _dataset(tmp_path: Path, members: dict[str, bytes], most: int | None = None) -> VideoDataset:
    shard = write_tar(tmp_path / "x.tar", members.items())
    return VideoDataset(index_shard(str(shard)).samples, READER, seed=7, max_questions=most)


def _batch(dataset: VideoDataset, epoch: int = 0) -> Batch:
    return Collate(encode)([dataset[Place(number, epoch)] for number in range(len(dataset))])


def test_videos_of_different_length_and_text_in_one_batch(tmp_path: Path, clips: dict[int, bytes]) -> None:
    dataset = _dataset(tmp_path, {
        "a.json": annotation("one?", "two?"), "a.mp4": clips[2],
        "b.json": annotation("three?", video=None),
        "c.json": annotation("four?", "five?", "six?"), "c.mp4": clips[5],
    })  # fmt: skip
    batch = _batch(dataset)
    assert batch.skipped == []
    assert [(video.key, len(video)) for video in batch.videos] == [("a", 2), ("c", 5)]
    assert [read_barcodes(video.frames.numpy()) for video in batch.videos] == [[0, 1], [0, 1, 2, 3, 4]]
    assert [q.key for q in batch.questions] == ["a/0", "a/1", "b/0", "c/0", "c/1", "c/2"]
    assert batch.video_of == [0, 0, -1, 1, 1, 1]
    assert batch.questions[2].query_ids.tolist() == []


def test_every_sample_that_cannot_be_used_is_counted_with_its_reason(tmp_path: Path, clips: dict[int, bytes]) -> None:
    dataset = _dataset(tmp_path, {
        "good.json": annotation("short?", "x" * 50), "good.mp4": clips[3],
        "json.json": b"{", "json.mp4": clips[3],
        "no-video.json": annotation(), "no-video.webm": clips[3],
        "noise.json": annotation(), "noise.mp4": b"noise",
        "cut.json": annotation(), "cut.mp4": clips[5][:400],
        "forgotten.json": annotation(video=None), "forgotten.mp4": clips[3],
        "long.json": annotation("y" * 50), "long.mp4": clips[3],
        "huge.json": b" " * (1 << 20) + b"{}",
    })  # fmt: skip
    batch = _batch(dataset)
    assert [(q.key, v) for q, v in zip(batch.questions, batch.video_of, strict=True)] == [("good/0", 0)]
    assert [video.key for video in batch.videos] == ["good"]
    assert (batch.samples, batch.lost) == (8, 7.5)  # of "good" one question of two is left
    reasons = {skip.key: skip.reason for skip in batch.skipped}
    assert reasons == {
        "good/1": "too_long", "json": "bad_json", "no-video": "missing_member", "noise": "decode", "cut": "decode",
        "forgotten": "bad_json", "long/0": "too_long", "huge": "too_large",
    }  # fmt: skip
    assert {skip.shard for skip in batch.skipped} == {str(tmp_path / "x.tar")}
    details = {skip.key: skip.detail for skip in batch.skipped}
    assert details["forgotten"] == 'forgotten.mp4 stands beside a file without "video": "mp4"'


def test_a_batch_of_nothing_but_skips(tmp_path: Path) -> None:
    batch = _batch(_dataset(tmp_path, {"a.json": b"{", "b.json": annotation("z" * 50, video=None)}))
    assert (batch.videos, batch.questions, batch.video_of) == ([], [], [])
    assert [skip.key for skip in batch.skipped] == ["a", "b/0"]
    empty = Collate(encode)([])
    assert (empty.videos, empty.questions, empty.video_of, empty.skipped) == ([], [], [], [])


def test_a_shard_that_changed_since_it_was_listed_is_counted(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, {"a.json": annotation(video=None)})
    (tmp_path / "x.tar").unlink()
    skip = dataset[Place(0, 0)]
    assert isinstance(skip, Skip)
    assert skip.reason == "damaged_shard"


def test_reading_leaves_no_file_open(tmp_path: Path, clips: dict[int, bytes]) -> None:
    dataset = _dataset(tmp_path, {"a.json": annotation(), "a.mp4": clips[3], "b.json": annotation(), "b.mp4": b"no"})
    opened = Path("/proc/self/fd")
    if not opened.exists():
        pytest.skip("this system does not list open files")
    for number in (0, 1):
        dataset[Place(number, 0)]
    before = len(list(opened.iterdir()))
    for number in (0, 1) * 3:
        dataset[Place(number, 0)]
    assert len(list(opened.iterdir())) == before


def test_a_sample_is_a_function_of_its_place(tmp_path: Path) -> None:
    source = json.dumps({"questions": [{"question": f"q{i}", "answer": "a"} for i in range(5)]}).encode()
    dataset = _dataset(tmp_path, {"a.json": source}, most=2)
    seeds = set()
    for epoch in range(5):
        first, second = dataset[Place(0, epoch)], dataset[Place(0, epoch)]
        assert isinstance(first, LoadedSample) and first == second
        assert [asked.key for asked in first.questions] == [
            f"a/{asked.question.question[1:]}" for asked in first.questions
        ]
        seeds |= {asked.seed for asked in first.questions}
    assert len(seeds) == 10


@given(st.integers(1, 30), st.none() | st.integers(1, 40), st.integers(0, 100))
def test_the_window_of_questions_passes_over_all_of_them_equally_often(
    total: int, most: int | None, start: int
) -> None:
    windows = [questions_of_epoch(total, most, start * total + epoch) for epoch in range(total)]
    assert all(window == sorted(set(window)) and len(window) == min(total, most or total) for window in windows)
    assert set(Counter(number for window in windows for number in window).values()) == {min(total, most or total)}
