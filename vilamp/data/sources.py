"""Where the bytes of a shard come from: a local file, a URL of an object store (through fsspec), or a command.

A shard at a URL is read in place, a member at a time, where an index lies beside it.  Without one it is copied first,
since only a walk over the whole tar tells what is in it; and so is what a command writes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vilamp.credentials import without_credentials
from vilamp.data.locks import locked
from vilamp.disk import explain, open_plain, writing_to

log = logging.getLogger(__name__)

T = TypeVar("T")

PIPE = "pipe:"
SETTING = "data.cache_dir"
"""What says where copies go."""
ATTEMPTS = 3
"""How often a server is asked before it counts as out of reach."""
_FIRST_WAIT = 0.5
"""Seconds between the first two attempts; each further wait is four times as long."""
SILENCE = 60.0
"""Seconds for which a web server may send nothing.  A transfer may take any time."""
_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
"""Answers that asking again does not change."""


class SourceError(OSError):
    """A server or a command did not give what was asked for; the message holds no credentials."""

    def __init__(self, message: str) -> None:
        super().__init__(without_credentials(message))


def partial_path(path: str | Path) -> Path:
    """Where this process writes a file before it gets its name."""
    return Path(f"{path}.partial-{os.getpid()}")


def is_local(shard: str) -> bool:
    """Whether a shard is named by a path."""
    return not shard.startswith(PIPE) and "://" not in shard


def read_range(shard: str, offset: int, size: int) -> bytes:
    """Bytes of a file or a URL, fewer than ``size`` where it ends before.

    Raises:
        OSError: it cannot be read; for a URL a :class:`SourceError`.
    """
    if is_local(shard):
        with open(shard, "rb") as file:  # noqa: PTH123  (pathlib takes a third of the time of a small member)
            file.seek(offset)
            return file.read(size)
    if size == 0:  # a range cannot be empty
        return b""
    content: bytes = _ask(shard, lambda system, name: system.cat_file(name, start=offset, end=offset + size))
    return content


def read_whole(path: str, most: int) -> bytes | None:
    """The first ``most`` bytes of a small file or URL, None where there is none.

    Raises:
        OSError: as :func:`read_range`, or it is no plain file.
    """
    try:
        if is_local(path):
            with open_plain(path) as file:
                return file.read(most)
        return read_range(path, 0, most)
    except FileNotFoundError:
        return None
    except SourceError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def size_in_place(url: str) -> int | None:
    """Bytes of what is at a URL; None where its server sends files only as a whole, or does not know their size.

    Raises:
        SourceError: it cannot be read.
    """

    def look(system: Any, name: str) -> int | None:
        with system.open(name, "rb", block_size=512, cache_type="none") as file:
            size: int | None = getattr(file, "size", None)
            if size:
                file.seek(size - 1)  # any server can send the first
                try:
                    file.read(1)
                except ValueError:  # fsspec's word for a server that ignores the range
                    return None
            return size

    return _ask(url, look)


def find(pattern: str) -> list[str]:
    """The URLs that match a URL with ``*``, ``?`` or ``[...]``, sorted; one without is taken as it is.

    Raises:
        SourceError: the server does not tell what it has.
    """
    # Behind the ? of a web address comes a query.
    if not re.search(r"[*\[]" if pattern.startswith("http") else r"[*?\[]", pattern):
        return [pattern]
    return _ask(pattern, lambda system, name: sorted(map(system.unstrip_protocol, system.glob(name))))


def fetch(shard: str, folder: Path) -> str:
    """The path of a local copy of a URL's or a command's bytes, made now unless it is there.

    A URL is copied anew when its size or whatever else its server says of the version has changed; a command runs once.
    Several processes may ask for the same one at the same time.

    Raises:
        SourceError: there is nothing to copy, or not all of it came.
        OutputError: the folder cannot be written.
    """
    version, size = ("", None) if shard.startswith(PIPE) else _ask(shard, _version)
    digest = hashlib.blake2b(f"{shard}\n{version}".encode(), digest_size=8).hexdigest()
    stem = re.sub(r"[^\w.-]+", "_", without_credentials(shard).rpartition("/")[2])[-80:]
    path = folder / f"{digest}-{stem}"
    with writing_to({folder: SETTING}):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{path.name}.lock"):
            for half in folder.glob(f"{path.name}.partial-*"):  # whoever was killed over it
                half.unlink()
            if not path.exists():
                log.info("copying %s to %s", without_credentials(shard), path)
                _copy(shard, path, size)
    return str(path)


def _copy(shard: str, path: Path, size: int | None) -> None:
    partial = partial_path(path)
    try:
        if shard.startswith(PIPE):
            _run(shard.removeprefix(PIPE), partial)
        else:
            _ask(shard, lambda system, name: system.get_file(name, str(partial)))
        there = partial.stat().st_size
        if size is not None and there != size:
            raise SourceError(f"{shard}: {there} of {size} bytes came")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except SourceError as error:
        cause = error.__cause__
        told = explain(cause, {path.parent: SETTING}) if isinstance(cause, OSError) else None
        raise told or error from cause
    finally:
        partial.unlink(missing_ok=True)


def _run(command: str, path: Path) -> None:
    with path.open("wb") as file:
        # A shell, because pipes are what it is for; the user has allowed it by data.allow_pipe.
        done = subprocess.run(
            command, shell=True, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, check=False
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise SourceError(f"the command {command!r} ended with {done.returncode}{f': {said}' if said else ''}")


def _version(system: Any, name: str) -> tuple[str, int | None]:
    """What tells one version of a file from the next, and its size where it is known."""
    info = system.info(name)
    told = [f"{key}={info[key]}" for key in ("size", "ETag", "Last-Modified") if info.get(key) is not None]
    return "\n".join([str(system.ukey(name)), *told]), info.get("size")


def _ask(url: str, call: Callable[[Any, str], T]) -> T:
    """Call a file system of fsspec, again where that may help.

    Raises:
        SourceError: all attempts failed, for whatever reason.
    """
    from fsspec.core import url_to_fs  # what reads local files only goes without

    try:
        system, name = url_to_fs(url, **_options(url))
    except Exception as error:  # a package is missing, the URL is none, or a server (ftp://) does not let us in
        raise SourceError(f"{url} cannot be read: {error}") from error
    attempt = 0
    while True:
        try:
            return call(system, name)
        except Exception as error:  # each file system has exceptions of its own
            attempt += 1
            if attempt == ATTEMPTS or isinstance(error, _FINAL):
                root = error.__cause__ or error
                raise SourceError(f"{url} cannot be read: {type(root).__name__}: {str(root)[:300]}") from error
            log.info("%s", without_credentials(f"{url}: {type(error).__name__} {error}; asked again"))
            time.sleep(_FIRST_WAIT * 4 ** (attempt - 1))


def _options(url: str) -> dict[str, Any]:
    """What fsspec is told of web servers: else it ends every transfer, also a healthy one, after five minutes."""
    protocols = {"http", "https"} & {part.partition("://")[0] for part in url.split("::")}
    if not protocols:
        return {}
    from aiohttp import ClientTimeout
    from fsspec.config import conf

    timeout = ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    given = (conf.get("http", {}) | conf.get("https", {})).get("client_kwargs", {})  # which ours would replace
    return {protocol: {"client_kwargs": {"timeout": timeout, **given}} for protocol in protocols}
