"""The benchmark of reading shards: both sides read the same bytes, and ours notices when one of them is another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import shard_reading

from vilamp.samples import SkipSample


@pytest.mark.soak
def test_all_ways_read_every_byte_and_ours_verify_them(tmp_path: Path) -> None:
    shard = tmp_path / "x.tar"
    shard_reading.write_shard(shard, video_bytes=5000, videos=3)
    calls = shard_reading.ways(str(shard))
    assert {way: read() for way, read in calls.items()} == dict.fromkeys(calls, 3 * (5000 + 20 * 17))
    content = bytearray(shard.read_bytes())
    content[-20_000] ^= 1  # in the last video
    shard.write_bytes(content)
    calls.pop("tarfile")()
    for call in calls.values():
        with pytest.raises(SkipSample) as skip:
            call()
        assert skip.value.reason == "checksum"


def test_the_last_line_is_one_json_object_with_the_figures_of_the_table() -> None:
    command = [sys.executable, str(Path(shard_reading.__file__)), "--quick", "--json"]
    *table, last = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    rows = json.loads(last)["rows"]
    assert [(row["video_bytes"], row["videos"]) for row in rows] == shard_reading.QUICK_POINTS
    for row in rows:
        assert row.keys() == {column.key for column in shard_reading.COLUMNS}
        assert row["ours_over_tarfile"] == row["ours_s"] / row["tarfile_s"]
        assert any(f"{row['ours_s'] * 1e3:.1f}" in line for line in table)
