"""Damaged video files, and a process that reads them: ``python -m vilamp.testing.damage``, see :func:`main`."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Sequence
from typing import get_args

import numpy as np

from vilamp.probe import DecodeError, Kind
from vilamp.video import CHUNK, FrameChunk, VideoDecoder

PATIENCE = 300
"""Seconds for all files together, after which the process hangs."""


def damaged(source: bytes, rng: random.Random) -> bytes:
    """The file with some bits turned, its header overwritten, a piece cut off, wiped or put in between."""
    data = bytearray(source)
    place = rng.randrange(len(data))
    match rng.choice(["bits", "header", "cut", "wiped", "inserted"]):
        case "bits":
            for _ in range(rng.choice([1, 3, 30])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "header":
            start = max(data.find(b"moov"), 0)
            for _ in range(rng.choice([1, 2, 8])):
                data[min(len(data) - 1, start + rng.randrange(1200))] = rng.choice([0, 127, 128, 255])
        case "cut":
            del data[place:]
        case "wiped":
            end = min(len(data), place + rng.randrange(1, 2000))
            data[place:end] = bytes(end - place)
        case "inserted":
            data[place:place] = rng.randbytes(rng.randrange(1, 50))
    return bytes(data)


def flaw_of(chunk: FrameChunk, size: int) -> str:
    """What is wrong with the form of a chunk, empty where nothing is."""
    shape, count = list(chunk.frames.shape), len(chunk.frames)
    if not 1 <= count <= CHUNK or shape != [count, size, size, 3] or chunk.frames.dtype != np.uint8:
        return f"frames are {chunk.frames.dtype}{shape}, not uint8[c, {size}, {size}, 3] with 1 <= c <= {CHUNK}"
    for name, kind in (("asked", np.float64), ("got", np.float64), ("ok", np.bool_)):
        value = getattr(chunk, name)
        if value.shape != (count,) or value.dtype != kind:
            return f"{name} is {value.dtype}{list(value.shape)}, not {np.dtype(kind)}[{count}]"
    return "" if isinstance(chunk.decoder, str) and chunk.decoder else "decoder, the name of who decoded, is empty"


def outlive(decoder: VideoDecoder, sources: Sequence[bytes]) -> list[str]:
    """Have a process read the files one after the other; what went wrong, one line for each file that did."""
    work = pickle.dumps((decoder, list(sources)))
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100  ("" is the current folder)
    command = [sys.executable, "-P", "-m", "vilamp.testing.damage"]
    try:
        child = subprocess.run(
            command, input=work, capture_output=True, env=os.environ | {"PYTHONPATH": path}, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        return [f"file {_begun(error.stdout or b'')} was not done after {PATIENCE} seconds"]
    lines = child.stdout.splitlines()
    if child.returncode != 0 or len(lines) != len(sources) + 1:
        told = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        where = f"file {_begun(child.stdout)} ended the process" if lines else "the decoder could not be unpickled"
        return [f"{where}, exit code {child.returncode}: {' '.join(told)}"]
    return [f"file {i}: {flaw}" for i, line in enumerate(lines[1:]) if (flaw := json.loads(line))]


def _begun(output: bytes) -> int:
    return max(len(output.splitlines()) - 1, 0)


def read_one(decoder: VideoDecoder, source: bytes, size: int = 32) -> str:
    """What went wrong with one file, empty where it was read or refused with a :class:`DecodeError`."""
    try:
        probe = decoder.probe(source)
        for chunk in decoder.decode(source, probe, probe.starts[::5], size):
            if flaw := flaw_of(chunk, size):
                return flaw
    except DecodeError as error:
        return "" if error.kind in get_args(Kind) else f"a DecodeError of the unknown kind {error.kind!r}"
    except Exception as error:  # whatever foreign code raises
        return f"{type(error).__name__} instead of a DecodeError: {error}"
    return ""


def main() -> None:
    """Read a pickled (decoder, sources) from stdin, and print a line when it is there and one for every file."""
    decoder, sources = pickle.load(sys.stdin.buffer)  # from outlive(), not from data
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the decoder prints goes elsewhere
    print(file=output, flush=True)
    for source in sources:
        print(json.dumps(read_one(decoder, source)), file=output, flush=True)


if __name__ == "__main__":
    main()
