"""Names the frames that are read of a video without decoding it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import vilamp
from vilamp.data.frames import FrameSettings, Part
from vilamp.data.shard_sample import checksum, checksum_of
from vilamp.data.tar_listing import Member
from vilamp.probe import FileRange, Source
from vilamp.video import VideoDecoder

DECODES = ("av", "decord", "torchcodec")
"""Packages that turn bytes into pixels; another version may round otherwise."""


def frame_identity(decoder: VideoDecoder, settings: FrameSettings) -> Callable[[Source, Part | None], str]:
    """A function from a video file, and a part of it, to a digest that differs where the frames that are read may.

    It is one of the file's bytes, the settings, the decoder with its own settings, and the versions of what decodes.
    Neither the name of the video nor where it lies takes part.
    """
    told = [asdict(settings), _named(decoder), vilamp.__version__, [_version(name) for name in DECODES]]
    return partial(_digest, json.dumps(told, sort_keys=True, default=_named))


def _named(part: object) -> list[object]:
    """An object by its class and its attributes, or by how it prints itself."""
    return [f"{type(part).__module__}.{type(part).__qualname__}", getattr(part, "__dict__", repr(part))]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _digest(reading: str, source: Source, part: Part | None = None) -> str:
    if isinstance(source, FileRange):
        content, size = checksum_of(source.path, Member(source.offset, source.size))
    else:
        content, size = checksum(source), len(source)
    told = "" if part is None else f" {part[0]}:{part[1]}"
    return checksum(f"{content} {size} {reading}{told}".encode())
