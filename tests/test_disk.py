"""Which refusals of a disk are the user's to mend."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vilamp.disk import explain

OUT = Path("/some/out")


@pytest.mark.parametrize(
    ("number", "file", "told"),
    [
        (errno.EROFS, OUT / "a/file", "cannot write /some/out/a/file: Read-only file system; set --out to a folder"),
        (errno.ENOTDIR, OUT.parent, "cannot write /some: Not a directory; set --out to a folder"),
        (errno.ENOENT, OUT, "cannot write /some/out: No such file or directory; set --out to a folder"),
        (errno.ENOENT, OUT.parent, "cannot write /some: No such file or directory; set --out to a folder"),
        (errno.ENOENT, OUT / "missing", None),
        (errno.EACCES, Path("/elsewhere"), None),
        (errno.ENOENT, Path("/elsewhere"), None),
        (errno.EIO, OUT, None),
    ],
)
def test_a_folder_that_cannot_be_made_or_written_is_told_and_nothing_else(
    number: int, file: Path, told: str | None
) -> None:
    found = explain(OSError(number, os.strerror(number), str(file)), {OUT: "--out"})
    assert found is None if told is None else str(found).startswith(told)
