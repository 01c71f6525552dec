"""The benchmark of a long video's memory: its videos go the whole way, and its figures can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pipeline_memory
import pytest

from vilamp.data.isolation import can_isolate


@pytest.mark.soak
@pytest.mark.skipif(not can_isolate(), reason="only Linux tells the memory of all processes")
def test_both_videos_go_the_whole_way_through_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pipeline_memory, "SECOND", 10)
    monkeypatch.setattr(pipeline_memory, "LIMITS", {"files": 0})
    shard = pipeline_memory.write_shard(tmp_path, 10)
    assert pipeline_memory.grow("files", str(shard)) > 100
    shard.write_bytes(shard.read_bytes()[:-20_000])
    with pytest.raises(RuntimeError, match="second"):
        pipeline_memory.grow("files", str(shard))


def test_the_last_line_has_a_row_for_every_point(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(pipeline_memory, "write_shard", lambda folder, seconds: _touched(folder / f"{seconds}.tar"))
    monkeypatch.setattr(pipeline_memory, "extra_mib", lambda script, way, shard: float(Path(shard).stem))
    monkeypatch.setattr(pipeline_memory, "POINTS", (("memory", 10), ("files", 20), ("files", 30)))
    pipeline_memory.main(["--json"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [(row["frames_in"], row["seconds"], row["peak_mib"], row["over_first"]) for row in rows] == [
        ("memory", 10, 10, 1), ("files", 20, 20, 1), ("files", 30, 30, 1.5)
    ]  # fmt: skip
    assert all(row.keys() == {column.key for column in pipeline_memory.COLUMNS} for row in rows)


def _touched(file: Path) -> Path:
    file.touch()
    return file
