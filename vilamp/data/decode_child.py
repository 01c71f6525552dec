"""Decoding in a process that can be ended: the process itself, started by :mod:`vilamp.data.isolation`."""

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
from pathlib import Path
from typing import Any, BinaryIO

from vilamp.data.frames import FrameSettings, iterate_frames, plan_times
from vilamp.data.isolation import MAX_MESSAGE, Decoded, shared_bytes
from vilamp.probe import DecodeError, FileRange
from vilamp.video import VideoDecoder

LONGEST_TEXT = 4000
"""Characters of a message that is sent back."""


def main() -> None:
    """Load the decoder that stdin brings, then answer until the other side goes."""
    ours = socket.socket(fileno=int(sys.argv[1]))
    for to_everybody in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, a scheduler: the parent decides what ends
        signal.signal(to_everybody, signal.SIG_IGN)
    try:
        decoder, settings, gib = _receive(sys.stdin.buffer)
    except Exception:  # foreign code is imported
        _send(ours, {"bug": traceback.format_exc()})
        return
    threading.Thread(target=_end_with_parent, args=(sys.stdin.buffer,), daemon=True).start()
    _send(ours, {})
    while True:
        request, descriptors, _, _ = socket.recv_fds(ours, MAX_MESSAGE, 2)
        if not request:
            return
        _send(ours, _answer(json.loads(request), descriptors, decoder, settings, gib))
        for descriptor in descriptors:
            os.close(descriptor)


def _receive(stdin: BinaryIO) -> tuple[VideoDecoder, FrameSettings, float | None]:
    (length,) = struct.unpack("<Q", stdin.read(8))
    decoder, settings, gib = pickle.loads(stdin.read(length))  # from our own parent, not from data
    return decoder, FrameSettings(**settings), gib


def _end_with_parent(stdin: BinaryIO) -> None:
    """A parent that was killed cannot say so, but its end of the pipe closes."""
    os.read(stdin.fileno(), 1)  # not through the buffer, whose lock would be missed at the end of the process
    os._exit(0)


def _answer(
    request: dict[str, Any], descriptors: list[int], decoder: VideoDecoder, settings: FrameSettings, gib: float | None
) -> dict[str, Any]:
    video, output = descriptors
    source = FileRange(f"/proc/self/fd/{video}", request["offset"], request["length"])
    try:
        return _decode(source, output, decoder, settings, gib)
    except DecodeError as error:
        return {"kind": error.kind, "cause": error.cause[:LONGEST_TEXT]}
    except MemoryError:
        return {"kind": "memory", "cause": "decoding ran out of memory"}
    except Exception:  # a fault of the decoder, which the parent is to tell
        return {"bug": traceback.format_exc()[-LONGEST_TEXT:]}


def _decode(
    source: FileRange, output: int, decoder: VideoDecoder, settings: FrameSettings, gib: float | None
) -> dict[str, Any]:
    _limit(gib)
    probe = decoder.probe(source)
    times = plan_times(probe, settings)
    _limit(None)
    os.ftruncate(output, shared_bytes(len(times), settings.size))
    decoded = Decoded.in_memory_of(output, len(times), settings.size)
    _limit(gib)
    for chunk in iterate_frames(source, probe, times, decoder, settings):
        decoded.add(chunk)
    return {"count": decoded.done, "gaps": decoded.gaps, "decoder": decoded.decoder}


def _limit(gib: float | None) -> None:
    """Let the address space grow by so much from now on; None: without a limit."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    soft = most
    if gib is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft = pages * resource.getpagesize() + int(gib * 2**30)
        soft = soft if most == resource.RLIM_INFINITY else min(soft, most)
    resource.setrlimit(resource.RLIMIT_AS, (soft, most))


def _send(ours: socket.socket, answer: dict[str, Any]) -> None:
    ours.send(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
