"""A lock that cannot be made is an error, and not waited for."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vilamp.data import locks
from vilamp.data.locks import locked
from vilamp.data.needle import NeedleSet
from vilamp.data.sources import fetch
from vilamp.errors import DataError, OutputError

PROC = Path("/proc")
needs_proc = pytest.mark.skipif(not (PROC / "self").exists(), reason="no /proc, in which nobody can make a file")


def test_a_lock_is_held_by_one_at_a_time_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "x.lock"):
            assert (tmp_path / "x.lock").is_file()
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none/x.lock"):
        pass
    with pytest.raises(NotADirectoryError), locked(tmp_path / "x.lock/y.lock"):
        pass


def test_who_waits_for_long_says_what_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "TOLD_AFTER", 0.0)
    told, order = threading.Event(), []

    def second() -> None:
        with locked(tmp_path / "x.lock"):
            order.append("second")

    monkeypatch.setattr(caplog.handler, "emit", lambda record: order.append(record.getMessage()) or told.set())
    thread = threading.Thread(target=second)
    with locked(tmp_path / "x.lock"):
        thread.start()
        assert told.wait(60)
        order.append("first")
    thread.join(60)
    assert order == [f"waiting for another process, which holds {tmp_path / 'x.lock'}", "first", "second"]


@needs_proc
def test_where_no_lock_can_be_made_nobody_waits() -> None:
    with pytest.raises(PermissionError, match="no file can be made in this folder"), locked(PROC / "x.lock"):
        pass
    with pytest.raises(DataError, match=r"data\.generate\.root: cannot write the needle data to /proc: .*no file can"):
        NeedleSet(PROC, train_videos=1, val_videos=1).prepare()
    with pytest.raises(OutputError, match=r"cannot write /proc/.*: no file can.*; set data\.cache_dir to a folder"):
        fetch("pipe:echo x", PROC)
