"""Shards at URLs are verified and shown by their index, and large videos of them go into files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import fsspec
import pytest
from tars import annotation, write_tar

from vilamp import cli
from vilamp.data import spool
from vilamp.data.isolation import can_isolate
from vilamp.data.packing import check
from vilamp.data.packing.indexing import write_foreign_index
from vilamp.data.spool import Spool
from vilamp.probe import FileRange
from vilamp.testing.barcodes import write_video

URL = "memory://check/x.tar"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[bytes]:
    """A shard of two videos in fsspec's memory, with its index."""
    clip = write_video(list(range(4)), Fraction(1, 1))
    members = [(f"{key}.{name}", content) for key in "ab" for name, content in (("json", annotation()), ("mp4", clip))]
    shard = write_tar(tmp_path / "x.tar", members)
    assert not write_foreign_index(str(shard)).error
    memory = fsspec.filesystem("memory")
    for path in tmp_path.iterdir():
        memory.pipe(f"/check/{path.name}", path.read_bytes())
    yield clip
    memory.rm("/check", recursive=True)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the videos that went into files, which all do here."""
    sizes: list[int] = []
    keep = Spool.keep

    def noted(self: Spool, pieces: Any) -> FileRange:
        found = keep(self, pieces)
        sizes.append(found.size)
        return found

    monkeypatch.setattr(Spool, "keep", noted)
    for module in (spool, check):
        monkeypatch.setattr(module, "IN_MEMORY_GIB", 0.0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return sizes


def _check(capsys: Any, url: str = URL) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = cli.main(["pack", "--check", url, "--workers", "0", "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.skipif(not can_isolate(), reason="only Linux gives open files a path")
def test_videos_are_checked_and_shown_from_files(served: bytes, kept: list[int], capsys: Any, tmp_path: Path) -> None:
    code, found = _check(capsys)
    assert (code, found["samples"], found["problems"]) == (0, 2, [])
    assert kept == [len(served)] * 2
    assert cli.main(["inspect", URL, "--png", str(tmp_path / "x.png")]) == 0
    assert "2 of 2 sample(s)" in capsys.readouterr().out and (tmp_path / "x.png").stat().st_size
    assert kept == [len(served)] * 4


def test_bytes_that_changed_on_the_server_are_found(served: bytes, capsys: Any) -> None:
    memory = fsspec.filesystem("memory")
    content = bytearray(memory.cat("/check/x.tar"))
    content[content.rindex(served) + 10] ^= 1
    memory.pipe("/check/x.tar", bytes(content))
    code, found = _check(capsys)
    assert (code, found["samples"]) == (1, 1)
    assert [(problem["key"], problem["reason"]) for problem in found["problems"]] == [("b", "checksum")]


@pytest.mark.parametrize("shard", ["memory://check/none.tar", "pipe:touch ran"])
def test_what_has_no_index_is_neither_copied_nor_run(
    served: bytes, shard: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, found = _check(capsys, shard)
    assert (code, [problem["reason"] for problem in found["problems"]]) == (1, ["unreachable"])
    assert "there is no index beside it" in found["problems"][0]["detail"]
    assert cli.main(["inspect", shard]) == 1
    assert capsys.readouterr().err.startswith("error: SHARD: ")
    assert not (tmp_path / "ran").exists()


def test_why_an_index_cannot_be_used_is_told(served: bytes, capsys: Any) -> None:
    fsspec.filesystem("memory").pipe("/check/x.tar.index.jsonl", b"damaged")
    code, found = _check(capsys)
    assert (code, [problem["reason"] for problem in found["problems"]]) == (1, ["unreachable"])
    assert "no copy of it is made here: its index cannot be used: " in found["problems"][0]["detail"]


@pytest.mark.parametrize("there", [True, False], ids=["damaged", "missing"])
def test_no_password_is_shown(served: bytes, there: bool, capsys: Any) -> None:
    memory = fsspec.filesystem("memory")
    if there:
        content = bytearray(memory.cat("/check/x.tar"))
        content[content.rindex(served) + 10] ^= 1
        memory.pipe("/name:secret@check/x.tar", bytes(content))
        memory.pipe("/name:secret@check/x.tar.index.jsonl", memory.cat("/check/x.tar.index.jsonl"))
    try:
        assert cli.main(["inspect", "memory://name:secret@check/x.tar"]) == (0 if there else 1)
        assert cli.main(["pack", "--check", "memory://name:secret@check/x.tar", "--workers", "0", "--json"]) == 1
    finally:
        if there:
            memory.rm("/name:secret@check", recursive=True)
    told = capsys.readouterr()
    assert "secret" not in told.out + told.err
    assert ("checksum" if there else "unreachable") in told.out
