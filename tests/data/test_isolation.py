"""Decoding in a process of its own: a crash, a hang and a greedy decoder each cost one video."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from tars import annotation, write_tar
from unruly import HeldDecoder, LostDecoder, UnrulyDecoder, told

from vilamp import plugins
from vilamp.config import compose
from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.data.isolation import Budget, can_isolate
from vilamp.data.module import VideoDataModule
from vilamp.data.spool import Spool
from vilamp.decoders.auto import AutoDecoder
from vilamp.errors import ConfigError, PluginError
from vilamp.samples import EncodedQuestion, SkipSample
from vilamp.testing.barcodes import read_barcodes, write_video

pytestmark = pytest.mark.skipif(not can_isolate(), reason="only Linux has what this needs")

SETTINGS = FrameSettings(5.0, 100, 80)
TIGHT = Budget(seconds=60, gib=1)
CLIP = write_video([512 * i for i in range(98)], Fraction(1, 12_800))
NUMBERS = list(range(0, 98, 5))


def _child(reader: VideoReader) -> int:
    process = reader._frames._decode.__self__._child  # type: ignore[attr-defined]
    assert process is not None
    return int(process.pid)


def _ends(pid: int, seconds: float = 30) -> bool:
    """Whether a process that may not be ours is gone in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with open(descriptor):  # noqa: PTH123
        return bool(select.select([descriptor], [], [], seconds)[0])


def _reason(reader: VideoReader, source: bytes) -> tuple[str, str]:
    with pytest.raises(SkipSample) as caught:
        reader.read(source, "clip", "a.tar")
    return caught.value.reason, caught.value.detail


@pytest.fixture(scope="module")
def unruly() -> VideoReader:
    return VideoReader(UnrulyDecoder(), SETTINGS, TIGHT)


def test_a_process_of_its_own_gives_the_same_frames() -> None:
    isolated, here = VideoReader(AutoDecoder(), SETTINGS, TIGHT), VideoReader(AutoDecoder(), SETTINGS)
    for source in (CLIP, write_video(list(range(50)), Fraction(1, 5), suffix="ts")):
        there, expected = isolated.read(source, "clip"), here.read(source, "clip")
        assert torch.equal(there.frames, expected.frames)
        assert torch.equal(there.timestamps, expected.timestamps)
        assert (there.decoder, there.gaps, there.key) == (expected.decoder, expected.gaps, expected.key)
    assert _child(isolated) != os.getpid()


def test_ctrl_c_while_the_process_starts_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def interrupted(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        child = start(*args, **kwargs)
        child.send_signal(signal.SIGINT)  # as a terminal does to all, here before it imports anything
        return child

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    video = VideoReader(AutoDecoder(), SETTINGS, TIGHT).read(CLIP, "clip")
    assert read_barcodes(video.frames[:].numpy()) == NUMBERS


def test_frames_outlive_the_next_video_and_may_be_written_to(unruly: VideoReader) -> None:
    first = unruly.read(CLIP, "one").frames
    before = first.clone()
    second = unruly.read(CLIP, "two").frames
    second.zero_()
    assert torch.equal(first, before)


@pytest.mark.parametrize(
    ("word", "reason", "told_by"),
    [
        (b"crash", "decode_crash", "ended with signal 6"),
        (b"leave", "decode_crash", "ended with exit code 3"),
        (b"grow", "decode_memory", "data.decode_memory=1 GiB are allowed"),
    ],
)
def test_each_costs_one_video_and_the_next_is_read(unruly: VideoReader, word: bytes, reason: str, told_by: str) -> None:
    unruly.read(CLIP, "clip")
    first = _child(unruly)
    seen, detail = _reason(unruly, told(CLIP, word))
    assert seen == reason
    assert told_by in detail
    assert read_barcodes(unruly.read(CLIP, "next").frames.numpy()) == NUMBERS
    assert _child(unruly) != first
    assert _ends(first)


def test_a_decoder_that_hangs_is_ended() -> None:
    reader = VideoReader(UnrulyDecoder(), SETTINGS, Budget(seconds=0.5))
    seen, detail = _reason(reader, told(CLIP, b"hang"))
    assert (seen, "longer than data.decode_timeout=0.5 seconds" in detail) == ("decode_timeout", True)


def test_errors_of_the_video_are_those_of_this_process(unruly: VideoReader) -> None:
    assert _reason(unruly, b"no video") == _reason(VideoReader(UnrulyDecoder(), SETTINGS), b"no video")
    process = _child(unruly)
    unruly.read(CLIP, "next")
    assert _child(unruly) == process, "an unreadable video ends nothing"


def test_a_fault_of_the_decoder_is_told_as_such(unruly: VideoReader) -> None:
    with pytest.raises(PluginError, match=r"(?s)decoder unruly failed: .*KeyError: 'a mistake of its author'"):
        unruly.read(told(CLIP, b"fault"), "clip")


@pytest.mark.parametrize(
    ("decoder", "message"),
    [(HeldDecoder(), "decoder unruly cannot be used in a process of its own.*data.decode_timeout=null"),
     (LostDecoder(), "(?s)decoder unruly cannot be loaded in a process of its own.*its library is not there")],
    ids=["pickled", "unpickled"],
)  # fmt: skip
def test_a_decoder_that_cannot_be_sent_is_told(decoder: UnrulyDecoder, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        VideoReader(decoder, SETTINGS, TIGHT).read(CLIP, "clip")


@pytest.mark.parametrize("value", [0, -1, float("inf")])
def test_limits_that_are_none_are_named(value: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.decode_timeout"):
        Budget(seconds=value)
    with pytest.raises(ConfigError, match=r"data\.decode_memory"):
        Budget(gib=value)


def encode(question, key, has_video, seed) -> EncodedQuestion:  # type: ignore[no-untyped-def]
    return EncodedQuestion(key, question, torch.zeros(1), torch.zeros(1), torch.zeros(1), seed)


@pytest.mark.parametrize("workers", [0, 2])
def test_crashes_in_a_loader_are_counted_skips(tmp_path: Path, workers: int) -> None:
    sources = {"a": CLIP, "b": told(CLIP, b"crash"), "c": CLIP, "d": told(CLIP, b"grow"), "e": CLIP}
    members = [(f"{key}.{end}", data) for key, clip in sources.items() for end, data in
               (("json", annotation()), ("mp4", clip))]  # fmt: skip
    shard = str(write_tar(tmp_path / "x.tar", members))
    data = VideoDataModule(
        val=shard, fps=5.0, frame_size=80, decode_timeout=60, decode_memory=1, num_workers=workers,
        encode=encode, decoder=UnrulyDecoder(),
    )  # fmt: skip
    data.setup()
    loader = data.val_dataloader()
    assert not isinstance(loader, list)
    for _ in range(2):  # the second time with the same processes
        batches = list(loader)
        assert [video.key for batch in batches for video in batch.videos] == ["a", "c", "e"]
        skipped = [(skip.key, skip.reason) for batch in batches for skip in batch.skipped]
        assert skipped == [("b", "decode_crash"), ("d", "decode_memory")]


PROGRAM = """
import os, sys
from unruly import UnrulyDecoder
from vilamp.data.frames import FrameSettings
from vilamp.data.isolation import Budget, DecodeProcess
process = DecodeProcess(UnrulyDecoder(), FrameSettings(5.0, 100, 80), Budget(60, 1))
process.decode(open(sys.argv[1], "rb").read())
print(process._child.pid, flush=True)
"""


@pytest.mark.parametrize("end", ["", "sys.exit(1)", "1 / 0", "os._exit(0)", "sys.stdin.read()"])
def test_no_process_is_left_behind(tmp_path: Path, end: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(CLIP)
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + end, str(tmp_path / "clip.mp4")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        if "stdin" in end:
            process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert _ends(pid)


@pytest.mark.parametrize("greeting_is_waited_for", [True, False])
def test_a_process_whose_parent_did_not_read_its_answer_ends_in_silence(greeting_is_waited_for: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    work = pickle.dumps((UnrulyDecoder(), asdict(SETTINGS), 1.0, asdict(Spool())))
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "vilamp.data.decode_child", str(theirs.fileno())], pass_fds=[theirs.fileno()],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    theirs.close()
    with child:
        assert child.stdin is not None and child.stderr is not None
        if not greeting_is_waited_for:
            ours.close()
        child.stdin.write(struct.pack("<Q", len(work)) + work)
        child.stdin.flush()
        if greeting_is_waited_for:
            assert select.select([ours], [], [], 60)[0]
            ours.close()  # with what was not read, which resets the other end
        assert (child.wait(timeout=60), child.stderr.read()) == (0, b"")


def test_a_drop_in_decoder_decodes_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from vilamp.decoders.pyav import PyAVDecoder\n\n\n"
        'class MyDecoder(PyAVDecoder):\n    """PyAV under another name."""\n\n    name = "my_decoder"\n'
    )
    points = '[project]\nname = "my-decoder"\nversion = "0.1"\n'
    points += '[project.entry-points."vilamp.plugins"]\nmy_decoder = "my_decoder"\n'
    yaml = "# PyAV under another name.\n_target_: my_decoder.MyDecoder\n"
    for path, text in {
        "pyproject.toml": points, "my_decoder/__init__.py": code, "conf/decoder/my_decoder.yaml": yaml
    }.items():  # fmt: skip
        file = tmp_path / "my_decoder" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setenv(plugins.PATH_VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        listed = {(entry.group, entry.name): entry.summary for entry in plugins.listing()}
        assert listed["decoder", "my_decoder"] == "PyAV under another name."
        assert {name for group, name in listed if group == "decoder"} >= {"auto", "pyav", "decord", "torchcodec"}
        decoder = get_class(compose("train", ["decoder=my_decoder"]).decoder._target_)()
        video = VideoReader(decoder, SETTINGS, TIGHT).read(CLIP, "clip")
    finally:
        sys.modules.pop("my_decoder", None)
    assert video.decoder == "my_decoder"
    assert read_barcodes(video.frames.numpy()) == NUMBERS
