"""The benchmark of decoding: all ways read the same frames, and its figures can be read."""

from __future__ import annotations

import json
from pathlib import Path

import decoding
import pytest


def test_every_way_reads_a_frame_for_every_second(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(decoding, "find_ffmpeg", lambda: None)
    monkeypatch.setattr(decoding, "GOPS", (30,))
    rows = decoding.cpu_rows(tmp_path, 20, 1)
    assert {row["way"] for row in rows} >= {"auto", "isolated", "pyav"}
    assert {(row["gop"], row["frames"]) for row in rows} == {(30, 20)}
    for row in rows:
        assert set(row) >= {column.key for column in decoding.CPU_COLUMNS}
        assert row["cpu_seconds"] > 0
    assert "nothing is compared with it" in capsys.readouterr().out


def test_what_ffmpeg_writes_is_counted_in_frames_and_its_failure_is_told(tmp_path: Path) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text(f"#!/bin/sh\nhead -c {7 * 3 * decoding.SIZE**2} /dev/zero\n")
    script.chmod(0o755)
    assert decoding.run_ffmpeg(str(script), tmp_path) == 7
    script.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(RuntimeError, match="exit code 3"):
        decoding.run_ffmpeg(str(script), tmp_path)


def test_the_last_lines_have_a_row_for_every_way_and_length(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    row = {"gop": 250, "way": "auto", "frames": 20, "cpu_seconds": 1.0, "over_ffmpeg": 0.5, "over_auto": 1.0}
    monkeypatch.setattr(decoding, "cpu_rows", lambda folder, seconds, repeats: [row])
    monkeypatch.setattr(decoding, "make_video", lambda folder, seconds, gop: _touched(folder / f"{seconds}.mp4"))
    monkeypatch.setattr(decoding, "extra_mib", lambda script, file: float(Path(file).stem))
    decoding.main(["--quick", "--json"])
    cpu, memory = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    assert cpu["rows"] == [row]
    assert [row["over_first"] for row in memory["rows"]] == [1, 2, 3]


def _touched(file: Path) -> Path:
    file.touch()
    return file
