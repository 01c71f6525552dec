"""Skips are counted once and listed, and memory is that of this run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vilamp.errors import DataError
from vilamp.samples import Batch, Skip, Video
from vilamp.training import callbacks
from vilamp.training.callbacks import ResourceMonitor, SkipReport
from vilamp.training.decode_report import DecodeReport
from vilamp.training.skip_limit import FIRST_STRETCH, Pass, judge

needs_rollup = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells")


def test_throughput_counts_what_all_ranks_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = ResourceMonitor()
    monitor.on_fit_start(SimpleNamespace(world_size=2), None)
    monitor.own.update(frames=60, videos=3)
    monitor.seconds = 2.0
    assert not any("_per_s" in name for name in monitor.measure()), "nobody knows yet what the other rank reaches"
    monkeypatch.setattr(callbacks, "gather", lambda own: [own, {"frames": 10.0, "videos": 0.5}])
    monitor.on_train_epoch_end(None, None)
    figures = monitor.measure()
    assert (figures["throughput/frames_per_s"], figures["throughput/videos_per_s"]) == (40.0, 2.0)
    alone = ResourceMonitor()
    alone.on_fit_start(SimpleNamespace(world_size=1), None)
    alone.own.update(frames=60, videos=3)
    alone.seconds = 2.0
    assert alone.measure()["throughput/frames_per_s"] == 30.0


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


def test_videos_are_counted_by_who_decoded_them_and_gaps_are_added_up() -> None:
    def decoded(by: str, gaps: int = 0) -> Video:
        return Video("a", torch.zeros(4, 2, 2, 3, dtype=torch.uint8), torch.arange(4.0), by, gaps)

    report = DecodeReport()
    assert report.measure() == {"data/gaps": 0.0}
    report.add(Batch([decoded("pyav", 2), decoded("decord")], [], []))
    report.share()
    report.add(Batch([decoded("pyav", 1)], [], []))
    assert report.measure() == {"data/decoded_by/decord": 1.0, "data/decoded_by/pyav": 2.0, "data/gaps": 3.0}


@pytest.mark.parametrize(
    ("samples", "lost", "rate", "complete", "ends"),
    [
        (3, 1, 0.01, True, False),  # one sample alone ends no run
        (3, 1.5, 0.01, True, True),
        (3, 0.25, 0.0, True, True),
        (3, 0, 0.0, True, False),
        (1000, 10, 0.01, True, False),
        (1000, 10.5, 0.01, True, True),
        (100, 9, 0.01, False, False),  # may still be chance
        (100, 11, 0.01, False, True),
        (FIRST_STRETCH * 2, 20, 0.01, False, False),
        (FIRST_STRETCH * 2, 21, 0.01, False, True),
        (7, 7, 1.0, True, False),
    ],
)
def test_more_lost_than_allowed_ends_the_run(
    samples: int, lost: float, rate: float, complete: bool, ends: bool, tmp_path: Path
) -> None:
    seen = Pass("train", samples, lost)
    if not ends:
        judge(seen, rate, tmp_path, complete=complete)
        return
    with pytest.raises(
        DataError, match=rf"^{lost:g} of {samples} samples of data\.train .*data\.max_skip_rate={rate:g}"
    ):
        judge(seen, rate, tmp_path, complete=complete)


def test_the_message_names_reasons_by_number_and_the_file(tmp_path: Path) -> None:
    seen = Pass("val")
    skips = [Skip(str(i), "a.tar", reason, "") for i, reason in enumerate(["decode", "too_long", "decode"])]
    seen.add(Batch([], [], [], skips, samples=4, lost=2.5))
    with pytest.raises(DataError, match=r"^2\.5 of 4 .*62\.5%.*decode 2, too_long 1; .*/q\.jsonl lists them"):
        judge(seen.of_all_ranks(), 0.1, tmp_path / "q.jsonl", complete=True)


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


@needs_rollup
def test_the_tree_counts_what_every_process_holds_once() -> None:
    program = """
import multiprocessing, os
import torch
from vilamp.training.memory import reset_peak_rss, tree_gib

torch.set_num_threads(1)  # a forked child would wait for threads of OpenMP that it does not have
QUARTER = 2**28

def hold(pipe):
    pipe.recv()
    own = torch.ones(QUARTER, dtype=torch.uint8)
    pipe.send(None)
    pipe.recv()

shared = torch.ones(QUARTER, dtype=torch.uint8)  # the child's too, until one of them writes
here, there = multiprocessing.Pipe()
reset_peak_rss()
alone = tree_gib()
child = multiprocessing.get_context("fork").Process(target=hold, args=(there,))
child.start()
forked = tree_gib()
here.send(None)
here.recv()
held = tree_gib()
here.send(None)
child.join()
waiting = torch.ones(QUARTER, dtype=torch.uint8).share_memory_()
descriptor = os.dup(waiting.untyped_storage()._share_fd_cpu_()[0])
del waiting  # as a batch between a worker and the run: in shared memory, and in nobody's address space
reset_peak_rss()
travelling = tree_gib()
os.close(descriptor)
print(alone, forked, held, travelling)
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    alone, forked, held, travelling = map(float, told.split())
    assert alone > 0.25
    assert forked - alone < 0.1, "what both have counts once"
    assert 0.24 < held - forked < 0.3, "what the child has counts"
    assert 0.24 < travelling - alone < 0.35, "what is on its way counts"


@needs_rollup
def test_what_a_step_took_is_in_the_peak_of_the_tree() -> None:
    program = """
from vilamp.training.memory import reset_peak_rss, tree_gib
reset_peak_rss()
before = tree_gib()
block = bytearray(b"x" * 2**28)
del block
print(before, tree_gib())
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    before, after = map(float, told.split())
    assert after - before > 0.2
