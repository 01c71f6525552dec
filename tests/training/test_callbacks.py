"""Skips are counted once and listed, and memory is that of this run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from vilamp.samples import Skip
from vilamp.training.callbacks import SkipReport


def test_a_sample_that_fails_every_epoch_is_counted_and_listed_once(tmp_path: Path) -> None:
    report = SkipReport(tmp_path)
    broken = Skip("a", "train-0.tar", "decode", "no frames")
    for _ in range(3):
        report.report([broken, Skip("b", "train-0.tar", "too_long", "99 tokens")])
    report.report([Skip("a", "train-1.tar", "decode", "another shard's sample of the same key")])
    assert report.measure() == {"data/skipped": 3.0, "data/skipped/decode": 2.0, "data/skipped/too_long": 1.0}
    rows = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [(row["key"], row["shard"], row["reason"]) for row in rows] == [
        ("a", "train-0.tar", "decode"),
        ("b", "train-0.tar", "too_long"),
        ("a", "train-1.tar", "decode"),
    ]
    assert rows[0]["detail"] == "no frames"


def test_without_a_skip_the_count_is_zero_and_no_file_appears(tmp_path: Path) -> None:
    report = SkipReport(tmp_path)
    report.report([])
    assert report.measure() == {"data/skipped": 0.0}
    assert not list(tmp_path.iterdir())


def test_the_peak_follows_an_allocation_and_can_be_reset() -> None:
    # In a process of its own: the system may take cold pages of a large one away while this looks.
    program = """
from vilamp.training.memory import peak_rss_gib, reset_peak_rss
reset = reset_peak_rss()
before = peak_rss_gib()
block = bytearray(b"x" * 2**28)  # a quarter of a GiB, written to
grown = peak_rss_gib()
del block
later = peak_rss_gib()
reset_peak_rss()
print(before, grown, later, peak_rss_gib() if reset else 0.0)
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    before, grown, later, after = map(float, told.split())
    assert grown - before > 0.2
    assert later >= grown - 1e-6, "a peak does not fall by itself"
    assert after < grown - 0.2
