"""Shards for the tests, written with the standard library and not with what is tested."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

Members = Iterable[tuple[str, bytes]]


def write_tar(path: Path, members: Members, **options: object) -> Path:
    """A tar of (name, bytes) in this order; a name may come twice."""
    with tarfile.open(path, "w", **options) as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def annotation(*questions: str, video: str | None = "mp4", **fields: object) -> bytes:
    """The bytes of a ``.json``; one question where none is given."""
    asked = [{"question": text, "answer": "red", **fields} for text in questions or ("what colour is it?",)]
    return json.dumps({"video": video, "questions": asked} if video else {"questions": asked}).encode()
