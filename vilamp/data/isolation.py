"""Probing and decoding in a process that can be ended: the side that asks.

A damaged or hostile video can make a native library run for ever, take all memory or crash.  One child decodes one
video after the other, and puts the frames into memory that both see or a file that both have open, so that no frame is
copied on its way.  It is no child of :mod:`multiprocessing`, because the workers of a DataLoader may have none.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.util import Finalize
from typing import Any

import numpy as np

from vilamp.data.frames import FrameSettings, Part
from vilamp.data.interrupts import interrupts_deferred
from vilamp.data.spool import Spool
from vilamp.errors import ConfigError, OutputError, PluginError
from vilamp.frame_file import FrameFile
from vilamp.probe import DecodeError, FileRange, Source
from vilamp.video import FrameChunk, VideoDecoder

MAX_MESSAGE = 1 << 16
START_SECONDS = 120
"""Time for the child to import a decoder's libraries; a busy machine with a cold disk takes some."""


@dataclass(frozen=True)
class Budget:
    """What the reading of one video may take; None is no limit.

    Attributes:
        seconds: wall time.
        gib: address space beyond what the process has before and beyond the frames handed on.
        seconds_from, gib_from: what sets them, for messages; empty where nothing does.

    Raises:
        ConfigError: a value that is not positive.
    """

    seconds: float | None = None
    gib: float | None = None
    seconds_from: str = "data.decode_timeout"
    gib_from: str = "data.decode_memory"

    def __post_init__(self) -> None:
        for name, value in ((self.seconds_from, self.seconds), (self.gib_from, self.gib)):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be positive, or null for no limit, got {value}")

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return self.seconds is not None or self.gib is not None

    def told_seconds(self) -> str:
        """The time and what sets it, for messages."""
        return f"{_equals(self.seconds_from)}{self.seconds} seconds"

    def told_gib(self) -> str:
        """The memory and what sets it, for messages."""
        return f"{_equals(self.gib_from)}{self.gib} GiB"


def _equals(setting: str) -> str:
    return f"{setting}=" if setting else ""


USUAL = Budget(seconds=600.0, gib=4.0, seconds_from="", gib_from="")
"""What a run allows by default, for commands that have no settings for it."""


@dataclass
class Decoded:
    """The frames of one video, filled chunk by chunk.

    Attributes:
        frames: uint8[N, size, size, 3], in memory or in a file.
        timestamps: float64[N], seconds from the first frame.
        decoder: who decoded the last chunk.
        gaps: how many frames stand in for one that cannot be decoded.
        done: how many frames are there.
    """

    frames: np.ndarray | FrameFile
    timestamps: np.ndarray
    decoder: str = ""
    gaps: int = 0
    done: int = 0

    def add(self, chunk: FrameChunk) -> None:
        """Put the next frames in."""
        place = slice(self.done, self.done + len(chunk))
        self.frames[place], self.timestamps[place] = chunk.frames, chunk.got
        self.decoder = chunk.decoder
        self.gaps += int((~chunk.ok).sum())
        self.done += len(chunk)

    @classmethod
    def shared(cls, descriptor: int, count: int, size: int, file: FrameFile | None) -> Decoded:
        """Of ``count`` frames in shared memory: all timestamps, then all frames, unless those are in a file."""
        length = count * (8 if file is not None else 8 + 3 * size * size)
        if os.fstat(descriptor).st_size < length:  # nobody has written to it yet
            os.ftruncate(descriptor, length)
        shared = mmap.mmap(descriptor, length, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        timestamps = np.frombuffer(shared, dtype=np.float64, count=count)
        if file is not None:
            return cls(file, timestamps)
        frames = np.frombuffer(shared, dtype=np.uint8, offset=timestamps.nbytes)
        return cls(frames.reshape(count, size, size, 3), timestamps)


def can_isolate() -> bool:
    """Whether this system has anonymous files that processes can share (Linux has)."""
    return hasattr(os, "memfd_create")


class DecodeProcess:
    """A child that probes and decodes; started when it is first needed, and again after it ended.

    Args:
        decoder: is pickled on its way to the child.
        settings: how videos are read.
        budget: of one video.
        spool: where its frames are put.
    """

    def __init__(
        self,
        decoder: VideoDecoder,
        settings: FrameSettings,
        budget: Budget,
        spool: Spool = Spool(),  # noqa: B008
    ) -> None:
        self.decoder, self.settings, self.budget, self.spool = decoder, settings, budget, spool
        self._owner: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._stop: Finalize[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the child: a copy starts its own."""
        return self.__dict__ | {"_owner": None, "_child": None, "_socket": None, "_stop": None}

    def decode(self, source: Source, part: Part | None = None) -> Decoded:
        """Have a video decoded, or a part of it.

        Raises:
            DecodeError: as the decoder says, or ``timeout``, ``memory`` or ``crash``.
            PluginError: the decoder cannot be used at all, or fails with an error that is none of a video.
            OutputError: the disk does not take the frames.
        """
        self._ensure_child()
        output = os.memfd_create("frames")
        try:
            answer, files = self._ask("decoding", source, {"part": part}, [output])
            count, size = answer["count"], self.settings.size
            decoded = Decoded.shared(output, count, size, FrameFile(files[0], count, size) if files else None)
        finally:
            os.close(output)
        decoded.decoder, decoded.gaps, decoded.done = answer["decoder"], answer["gaps"], answer["count"]
        return decoded

    def probe(self, source: Source) -> tuple[float, str]:
        """Have the container of a video read: its length in seconds, and what says that it is not whole.

        Raises:
            DecodeError, PluginError: as :meth:`decode`.
        """
        self._ensure_child()
        answer, _ = self._ask("reading its packets", source, {}, [])
        return answer["end"], answer["damage"]

    def _ask(
        self, what: str, source: Source, request: dict[str, Any], outputs: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        """The answer if it is no error, and the descriptors that come with it."""
        deadline = None if self.budget.seconds is None else time.monotonic() + self.budget.seconds
        with _as_file(source) as (descriptor, offset, length):
            whole = {**request, "offset": offset, "length": length}
            answer, files = self._exchange(what, whole, [descriptor, *outputs], deadline)
        if "refused" in answer:
            raise OutputError(answer["refused"])
        if "bug" in answer:
            raise PluginError(f"decoder {self.decoder.name} failed: {answer['bug']}")
        if "kind" in answer:
            if answer["kind"] == "memory":
                self.stop()  # what a failed allocation leaves behind is anybody's guess
                answer["cause"] += f"; {self.budget.told_gib()} are allowed"
            raise DecodeError(answer["kind"], answer["cause"])
        return answer, files

    def _exchange(
        self, what: str, request: dict[str, Any], descriptors: list[int], deadline: float | None
    ) -> tuple[dict[str, Any], list[int]]:
        assert self._socket is not None
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            self._socket.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
            answer, files, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError as error:
            self.stop()
            message = f"{what} took longer than {self.budget.told_seconds()}, and was ended"
            raise DecodeError("timeout", message) from error
        except BaseException as error:  # an interrupt, too: its answer must not be taken for that to the next video
            how = self.stop()
            if isinstance(error, OSError):
                raise DecodeError("crash", f"the decoding process {how}") from error
            raise
        if not answer:
            raise DecodeError("crash", f"the decoding process {self._ended()}")
        return json.loads(answer), files

    def _ensure_child(self) -> None:
        if self._child is not None and self._owner == os.getpid():
            if self._child.poll() is None:
                return
            self.stop()
        elif self._child is not None:
            self._child.returncode = 0  # another process's, before a fork; only that one may wait for it
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The child finds what this process finds, drop-in plugins too.
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100  ("" is the current folder)
        with theirs, interrupts_deferred():
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "vilamp.data.decode_child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path},
            )
        # Runs when this object goes, or the process, be it a worker of a DataLoader.
        stop = Finalize(self, _end, args=(child, ours), exitpriority=10)
        self._owner, self._child, self._socket, self._stop = os.getpid(), child, ours, stop
        self._introduce(child, ours)

    def _introduce(self, child: subprocess.Popen[bytes], ours: socket.socket) -> None:
        """Send the decoder, and wait until the child has it.  The pipe stays open: when it closes, the child ends."""
        answer = b""
        try:
            work = pickle.dumps((self.decoder, asdict(self.settings), self.budget.gib, asdict(self.spool)))
            assert child.stdin is not None
            child.stdin.write(struct.pack("<Q", len(work)) + work)
            child.stdin.flush()
            ours.settimeout(START_SECONDS)
            answer = ours.recv(MAX_MESSAGE)
        except (OSError, pickle.PicklingError, AttributeError, TypeError) as error:
            how, settings = self.stop(), [self.budget.seconds_from, self.budget.gib_from]
            without = f"; {settings[0]}=null {settings[1]}=null decode without one" if all(settings) else ""
            raise PluginError(
                f"decoder {self.decoder.name} cannot be used in a process of its own, which {how}: {error}{without}"
            ) from error
        except BaseException:
            self.stop()
            raise
        if answer != b"{}":
            how = self.stop()
            told = json.loads(answer)["bug"] if answer else f"the process {how}"
            raise PluginError(f"decoder {self.decoder.name} cannot be loaded in a process of its own: {told}")

    def _ended(self) -> str:
        """How the child ended, which has closed its socket."""
        assert self._child is not None
        try:
            code = self._child.wait(timeout=10)  # it ends by itself, unless a stray descendant holds it up
        except subprocess.TimeoutExpired:
            code = None
        self.stop()
        return "stopped answering" if code is None else f"ended with {_exit(code)}"

    def stop(self) -> str:
        """End the child, if there is one; the next video starts another.  Returns how it ended, for messages."""
        child, stop = self._child, self._stop
        self._owner = self._child = self._socket = self._stop = None
        if stop is None or child is None:
            return "was not started"
        stop()
        return f"ended with {_exit(child.returncode)}"


def _exit(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _end(child: subprocess.Popen[bytes], ours: socket.socket) -> None:
    ours.close()
    child.kill()
    if child.stdin is not None:
        child.stdin.close()
    child.wait()


class _as_file:  # noqa: N801  (a context manager)
    """A source as (descriptor, offset, length) of a file that another process can read."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __enter__(self) -> tuple[int, int, int]:
        if isinstance(self.source, FileRange):
            self.descriptor = os.open(self.source.path, os.O_RDONLY | os.O_CLOEXEC)
            return self.descriptor, self.source.offset, self.source.size
        self.descriptor = os.memfd_create("video")
        rest = memoryview(self.source)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]
        return self.descriptor, 0, len(self.source)

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
