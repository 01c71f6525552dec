"""The benchmark of chunks that are filled across videos: both ways give the same, and its calls are counted rightly."""

from __future__ import annotations

import json

import pytest
import several_videos


def test_the_last_line_has_every_batch_and_fewer_calls_for_short_videos(capsys: pytest.CaptureFixture[str]) -> None:
    several_videos.main(["--quick", "--json"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [(row["mode"], row["videos"], row["frames"]) for row in rows] == [
        (mode, *size) for mode in several_videos.MODES for size in several_videos.QUICK_BATCHES
    ]
    # Of 8 videos of 4 frames, and of 2 of 70 in chunks of 64; in training once more in the backward pass.
    assert [(row["calls_alone"], row["calls_together"]) for row in rows] == [(8, 1), (4, 3), (16, 2), (8, 6)]
    assert all(row["time_ratio"] > 0 for row in rows)
