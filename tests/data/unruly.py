"""Decoders that misbehave where a video's file ends with a word that tells how."""

from __future__ import annotations

import errno
import os

import numpy as np

from vilamp.decoders.pyav import PyAVDecoder
from vilamp.probe import Source, open_source


class UnrulyDecoder(PyAVDecoder):
    """PyAV, but it obeys the last word of the file."""

    name = "unruly"

    def decode(self, source, probe, times, size):
        """See :meth:`VideoDecoder.decode`."""
        obey(source)
        yield from super().decode(source, probe, times, size)


class UnrulyProbe(PyAVDecoder):
    """PyAV, but it obeys when it is to read the container."""

    name = "unruly_probe"

    def probe(self, source):
        """See :meth:`VideoDecoder.probe`."""
        obey(source)
        return super().probe(source)


class HeldDecoder(UnrulyDecoder):
    """Cannot be pickled."""

    def __init__(self) -> None:
        self.opened = lambda: None


class LostDecoder(UnrulyDecoder):
    """Cannot be unpickled."""

    def __setstate__(self, state: object) -> None:
        raise OSError("its library is not there")

    def __getstate__(self) -> object:
        return {"something": 1}


def obey(source: Source) -> None:
    """Do what the last word of a file says, if that is one of these."""
    with open_source(source) as file:
        word = file.read().rpartition(b"free")[2]
    if word == b"crash":
        os.abort()
    if word == b"leave":
        os._exit(3)
    while word == b"hang":
        pass
    if word == b"grow":
        np.ones(2 << 30, dtype=np.uint8)
    if word == b"fault":
        raise KeyError("a mistake of its author")
    if word == b"disk":
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def told(source: bytes, word: bytes) -> bytes:
    """The mp4 with a last box, which players pass over, that holds the word."""
    return source + (8 + len(word)).to_bytes(4, "big") + b"free" + word
