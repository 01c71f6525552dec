"""Probing and decoding in a process that can be ended: the process itself, started by :mod:`vilamp.data.isolation`."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vilamp.data.frames import FrameSettings, Part, iterate_frames, plan_times
from vilamp.data.isolation import MAX_MESSAGE, Decoded
from vilamp.data.spool import Spool
from vilamp.errors import OutputError
from vilamp.frame_file import FrameFile
from vilamp.probe import DecodeError, FileRange
from vilamp.video import VideoDecoder

LONGEST_TEXT = 4000
"""Characters of a message that is sent back."""


def main() -> None:
    """Load the decoder that stdin brings, then answer until the other side goes."""
    ours = socket.socket(fileno=int(sys.argv[1]))
    for to_everybody in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, a scheduler: the parent decides what ends
        signal.signal(to_everybody, signal.SIG_IGN)
    with suppress(ConnectionError):  # a parent that was killed resets it where an answer had not been read
        _serve(ours)


def _serve(ours: socket.socket) -> None:
    try:
        work = _receive(sys.stdin.buffer)
    except Exception:  # foreign code is imported
        _send(ours, {"bug": traceback.format_exc()})
        return
    threading.Thread(target=_end_with_parent, args=(sys.stdin.buffer,), daemon=True).start()
    _send(ours, {})
    while True:
        request, descriptors, _, _ = socket.recv_fds(ours, MAX_MESSAGE, 2)
        if not request:
            return
        answer, file = _answer(json.loads(request), descriptors, work)
        _send(ours, answer, [] if file is None else [file.descriptor])
        del file  # the other side has it now
        for descriptor in descriptors:
            os.close(descriptor)


@dataclass(frozen=True)
class _Work:
    """What stays the same from video to video, as :class:`~vilamp.data.isolation.DecodeProcess` has it."""

    decoder: VideoDecoder
    settings: FrameSettings
    gib: float | None
    spool: Spool


def _receive(stdin: BinaryIO) -> _Work:
    (length,) = struct.unpack("<Q", stdin.read(8))
    decoder, settings, gib, spool = pickle.loads(stdin.read(length))  # from our own parent, not from data
    return _Work(decoder, FrameSettings(**settings), gib, Spool(**spool))


def _end_with_parent(stdin: BinaryIO) -> None:
    """A parent that was killed cannot say so, but its end of the pipe closes."""
    os.read(stdin.fileno(), 1)  # not through the buffer, whose lock would be missed at the end of the process
    os._exit(0)


def _answer(request: dict[str, Any], descriptors: list[int], work: _Work) -> tuple[dict[str, Any], FrameFile | None]:
    """The answer, and the file with the frames if they are in one."""
    video, *outputs = descriptors
    source = FileRange(f"/proc/self/fd/{video}", request["offset"], request["length"])
    try:
        if not outputs:
            return _probe(source, work), None
        with work.spool.told():
            return _decode(source, request["part"], outputs[0], work)
    except DecodeError as error:
        return {"kind": error.kind, "cause": error.cause[:LONGEST_TEXT]}, None
    except MemoryError:
        return {"kind": "memory", "cause": "there was not enough memory"}, None
    except OutputError as error:
        return {"refused": str(error)[:LONGEST_TEXT]}, None
    except Exception:  # a fault of the decoder, which the parent is to tell
        return {"bug": traceback.format_exc()[-LONGEST_TEXT:]}, None


def _probe(source: FileRange, work: _Work) -> dict[str, Any]:
    _limit(work.gib)
    try:
        probe = work.decoder.probe(source)
    except OSError as error:  # of the disk that the video is on
        raise DecodeError("unreadable", str(error)) from error
    return {"end": probe.end, "damage": probe.damage}


def _decode(source: FileRange, part: Part | None, output: int, work: _Work) -> tuple[dict[str, Any], FrameFile | None]:
    settings = work.settings
    _limit(work.gib)
    probe = work.decoder.probe(source)
    times = plan_times(probe, settings, part)
    _limit(None)
    file = work.spool.file_for(len(times), settings.size)
    decoded = Decoded.shared(output, len(times), settings.size, file)
    _limit(work.gib)
    for chunk in iterate_frames(source, probe, times, work.decoder, settings):
        decoded.add(chunk)
    return {"count": decoded.done, "gaps": decoded.gaps, "decoder": decoded.decoder}, file


def _limit(gib: float | None) -> None:
    """Let the address space grow by so much from now on; None: without a limit."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    soft = most
    if gib is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft = pages * resource.getpagesize() + int(gib * 2**30)
        soft = soft if most == resource.RLIM_INFINITY else min(soft, most)
    resource.setrlimit(resource.RLIMIT_AS, (soft, most))


def _send(ours: socket.socket, answer: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    socket.send_fds(ours, [json.dumps(answer).encode()], descriptors)


if __name__ == "__main__":
    main()
