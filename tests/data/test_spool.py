"""The frames of long videos go through a file: the same frames, and nothing is left behind."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from tars import annotation, write_tar
from unruly import UnrulyDecoder, told

from vilamp.data import spool
from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.data.isolation import Budget, can_isolate
from vilamp.data.module import VideoDataModule
from vilamp.data.spool import Spool, default_folder
from vilamp.decoders.auto import AutoDecoder
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.errors import ConfigError, OutputError, PluginError
from vilamp.frame_file import FrameFile
from vilamp.samples import EncodedQuestion, SkipSample, Video
from vilamp.testing.barcodes import write_video

SETTINGS = FrameSettings(5.0, 100, 80)
CLIP = write_video([512 * i for i in range(400)], Fraction(1, 12_800))
FRAME = 3 * 80 * 80
LINUX = pytest.mark.skipif(not can_isolate(), reason="only Linux decodes in a process of its own")
BUDGETS = [Budget(), pytest.param(Budget(60, 1), marks=LINUX)]


def _whole(video: Video) -> torch.Tensor:
    return video.frames[:]


def _open_in(folder: Path) -> int:
    """How many files without a name this process has open in a folder."""
    links = list(Path("/proc/self/fd").iterdir())
    return sum(str(folder) in str(link.readlink()) for link in links if link.is_symlink())


def test_only_what_is_more_than_the_limit_goes_into_a_file(tmp_path: Path) -> None:
    at_the_limit = Spool(4 * FRAME / 2**30, str(tmp_path))
    assert at_the_limit.file_for(4, 80) is None
    assert isinstance(at_the_limit.file_for(5, 80), FrameFile)
    assert Spool().file_for(10**9, 80) is None
    assert isinstance(Spool(0, str(tmp_path)).file_for(1, 80), FrameFile)


def test_the_folder_is_a_disk_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert default_folder() == Path(spool.tempfile.gettempdir())
    monkeypatch.delenv("TMPDIR")
    assert default_folder() == Path("/var/tmp")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert default_folder() == Path(spool.tempfile.gettempdir())


def test_a_limit_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for value in (-0.1, float("nan")):
        with pytest.raises(ConfigError, match=r"data\.frames_in_memory must be at least 0"):
            Spool(value)
    monkeypatch.setattr(spool, "can_keep_frames_in_files", lambda: False)
    assert Spool(0).file_for(1, 80) is None
    assert "data.frames_in_memory has no effect" in caplog.text


@pytest.mark.parametrize("budget", BUDGETS, ids=["here", "isolated"])
def test_frames_in_a_file_are_those_in_memory(tmp_path: Path, budget: Budget) -> None:
    holed = bytearray(CLIP)
    middle = len(CLIP) // 2
    holed[middle : middle + 2000] = bytes(2000)
    gaps = replace(SETTINGS, corrupt="gap", max_gaps=1.0)
    for source, settings in ((CLIP, SETTINGS), (bytes(holed), gaps)):
        in_memory = VideoReader(PyAVDecoder(), settings).read(source, "clip")
        reader = VideoReader(PyAVDecoder(), settings, budget, Spool(0, str(tmp_path / "frames")))
        for _ in range(2):
            video = reader.read(source, "clip")
            assert isinstance(video.frames, FrameFile) and isinstance(in_memory.frames, torch.Tensor)
            assert torch.equal(_whole(video), in_memory.frames)
            assert torch.equal(video.timestamps, in_memory.timestamps)
            assert (video.decoder, video.gaps) == (in_memory.decoder, in_memory.gaps)
            assert len(video) > 64, "more than one chunk"
    assert in_memory.gaps > 0
    assert _open_in(tmp_path) == 1
    del video
    assert _open_in(tmp_path) == 0
    assert not list((tmp_path / "frames").iterdir())


@LINUX
@pytest.mark.parametrize("word", [b"crash", b"fault"])
def test_a_decode_that_is_ended_leaves_no_file(tmp_path: Path, word: bytes) -> None:
    reader = VideoReader(UnrulyDecoder(), SETTINGS, Budget(60), Spool(0, str(tmp_path)))
    with pytest.raises((SkipSample, PluginError)):
        reader.read(told(CLIP, word), "clip")
    assert len(reader.read(CLIP, "next")) > 64
    assert _open_in(tmp_path) == 0
    assert not list(tmp_path.iterdir())


@LINUX
def test_a_full_disk_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolated = VideoReader(PyAVDecoder(), SETTINGS, Budget(60, 1), Spool(0, str(tmp_path)))
    isolated.read(CLIP, "clip")
    child = isolated._frames._decode.__self__._child  # type: ignore[attr-defined]
    _, most = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (FRAME * 70, most))  # in the second chunk
    wanted = rf"File too large while writing to {tmp_path}; make room there, or set data.frames_dir to"
    with pytest.raises(OutputError, match=wanted):
        isolated.read(CLIP, "clip")
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (most, most))
    assert len(isolated.read(CLIP, "again")) > 64

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match=rf"No space left on device while writing to {tmp_path}; make room there"):
        VideoReader(PyAVDecoder(), SETTINGS, spool=Spool(0, str(tmp_path))).read(CLIP, "clip")


@pytest.mark.parametrize("budget", BUDGETS, ids=["here", "isolated"])
def test_a_folder_that_cannot_be_is_one_message(tmp_path: Path, budget: Budget) -> None:
    (tmp_path / "file").touch()
    reader = VideoReader(PyAVDecoder(), SETTINGS, budget, Spool(0, str(tmp_path / "file" / "frames")))
    with pytest.raises(OutputError, match=r"set data\.frames_dir to a folder that can be written"):
        reader.read(CLIP, "clip")
    reader = VideoReader(PyAVDecoder(), SETTINGS, budget, Spool(1, str(tmp_path / "file" / "frames")))
    assert len(reader.read(CLIP, "short")) > 64, "who needs no file needs no folder"


def encode(question, key, has_video, seed) -> EncodedQuestion:  # type: ignore[no-untyped-def]
    return EncodedQuestion(key, question, torch.zeros(1), torch.zeros(1), torch.zeros(1), seed)


def _data(folder: Path, **settings: object) -> VideoDataModule:
    shard = folder / "x.tar"
    if not shard.exists():
        clips = {"long": CLIP, "short": write_video(list(range(10)), Fraction(1, 5)), "again": CLIP}
        write_tar(shard, [(f"{key}.{end}", data) for key, clip in clips.items() for end, data in
                          (("json", annotation()), ("mp4", clip))])  # fmt: skip
    data = VideoDataModule(val=str(shard), fps=5.0, frame_size=80, encode=encode, decoder=AutoDecoder(), **settings)
    data.setup()
    return data


def _videos(data: VideoDataModule) -> Iterator[Video]:
    loader = data.val_dataloader()
    assert not isinstance(loader, list)
    for batch in loader:
        assert not batch.skipped
        yield from batch.videos


@pytest.mark.parametrize(("workers", "timeout"), [(0, None), (2, None), pytest.param(2, 60, marks=LINUX)])
def test_batches_are_the_same_with_files_and_without(tmp_path: Path, workers: int, timeout: float | None) -> None:
    expected = list(_videos(_data(tmp_path, frames_in_memory=None)))
    frames_dir = tmp_path / "frames"
    data = _data(
        tmp_path, frames_in_memory=20 * FRAME / 2**30, frames_dir=str(frames_dir), decode_timeout=timeout,
        num_workers=workers, batch_size=2,
    )  # fmt: skip
    for _ in range(2):  # the second time with the same workers
        videos = list(_videos(data))
        assert [(video.key, isinstance(video.frames, FrameFile)) for video in videos] == [
            ("long", True), ("short", False), ("again", True)
        ]  # fmt: skip
        for video, other in zip(videos, expected, strict=True):
            assert torch.equal(_whole(video), _whole(other)) and torch.equal(video.timestamps, other.timestamps)
    assert not list(frames_dir.iterdir())


def test_a_killed_worker_leaves_no_file(tmp_path: Path) -> None:
    data = _data(tmp_path, frames_in_memory=0, frames_dir=str(tmp_path / "frames"), num_workers=1)
    loader = data.val_dataloader()
    assert not isinstance(loader, list)
    batches = iter(loader)
    first = next(batches).videos[0]
    (worker,) = batches._workers  # type: ignore[attr-defined]
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises((RuntimeError, OSError)):
        list(batches)
    assert len(_whole(first)) > 64, "what was handed on is there"
    assert not list((tmp_path / "frames").iterdir())


def test_a_sample_that_is_no_video_is_a_skip_as_ever(tmp_path: Path) -> None:
    with pytest.raises(SkipSample, match="decode"):
        VideoReader(PyAVDecoder(), SETTINGS, spool=Spool(0, str(tmp_path))).read(b"noise", "clip")
