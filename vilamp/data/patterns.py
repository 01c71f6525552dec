"""Which files ``data.train`` and ``data.val`` mean."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from braceexpand import braceexpand

from vilamp.data.sources import PIPE, SourceError, find, is_local
from vilamp.errors import DataError


def expand_patterns(
    patterns: str | Sequence[str], setting: str, *, remote: bool = False, allow_pipe: bool = False
) -> list[str]:
    """The shards that patterns name: in the order of the patterns, the matches of one pattern sorted by name.

    Args:
        patterns: one or several paths with ``*``, ``?``, ``[...]`` as a shell has them, ``**`` for folders of any
            depth, and ``{000000..000009}`` or ``{a,b}``.  A path that exists is taken as it is.
        setting: the configuration key, for messages.
        remote: they may be URLs too.
        allow_pipe: they may also be ``pipe:`` and a command that writes a shard, in which only braces are expanded.

    Raises:
        DataError: a pattern matches nothing, is malformed or not allowed, or two match the same file.
    """
    shards: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        _check(pattern, setting, remote, allow_pipe)
        for path in _braces(pattern.removeprefix("file://"), setting):
            shards.extend(_matches(path, pattern, setting))
    if not shards:
        raise DataError(f"{setting} names no shard: {_EXAMPLE.format(setting)}")
    repeated = [path for path, count in Counter(Path(name).resolve() for name in shards).items() if count > 1]
    if repeated:
        raise DataError(f"{setting}: {repeated[0]} is matched more than once, its samples would count double")
    return shards


_EXAMPLE = "give at least one, for example {}=shards/train-*.tar"


def _check(pattern: object, setting: str, remote: bool, allow_pipe: bool) -> None:
    if not isinstance(pattern, str) or not pattern:
        raise DataError(f"{setting}: {pattern!r} is no pattern of shards: {_EXAMPLE.format(setting)}")
    if is_local(pattern.removeprefix("file://")):
        return
    if not remote:
        raise DataError(f"{setting}: {pattern!r} is no local path; only local shards are read here, copy it first")
    if pattern.startswith(PIPE) and not allow_pipe:
        raise DataError(f"{setting}: {pattern!r} runs a command; data.allow_pipe=true allows that")


def _braces(pattern: str, setting: str) -> Iterator[str]:
    # os.path, because pathlib raises where a pattern is too long for a name or begins with an unknown ~user.
    path = os.path.expanduser(pattern)  # noqa: PTH111
    if os.path.exists(path):  # noqa: PTH110
        yield path
        return
    try:
        yield from braceexpand(path)
    except ValueError as error:
        raise DataError(f"{setting}: the braces of {pattern!r} do not match") from error


def _matches(path: str, pattern: str, setting: str) -> list[str]:
    if not is_local(path):
        return _urls(path, setting)
    # Path.glob takes no absolute patterns.
    found = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))  # noqa: PTH110, PTH207
    if not found:
        piece = "" if path == pattern else f" (looked for {path})"
        raise DataError(f"{setting}: no file matches {pattern!r}{piece}; relative paths start at {Path.cwd()}")
    for name in found:
        if not Path(name).is_file():
            raise DataError(f"{setting}: {name} is no file; to take all shards of a folder write {name}/*.tar")
    return found


def _urls(url: str, setting: str) -> list[str]:
    if url.startswith(PIPE):
        return [url]
    try:
        found = find(url)
    except SourceError as error:
        raise DataError(f"{setting}: {error}") from error
    if not found:
        raise DataError(f"{setting}: nothing matches {url!r}")
    return found
