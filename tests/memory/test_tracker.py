"""Counting what is alive, without numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vilamp.memory.kernels import few_blocks, fused_kernels
from vilamp.memory.tracker import StorageTracker
from vilamp.mergers import _in_blocks
from vilamp.mergers.differential import DifferentialMerger

KIB = 1024


@pytest.fixture
def tracker() -> Iterator[StorageTracker]:
    with StorageTracker(FakeTensorMode(allow_non_fake_inputs=True)) as entered:
        yield entered


def kib(count: int) -> torch.Tensor:
    """float32, of so many KiB."""
    return torch.empty(count * KIB // 4)


def test_the_peak_of_a_known_sequence_is_exact(tracker: StorageTracker) -> None:
    first = kib(3)
    second = kib(5)
    del first
    third = kib(2)
    assert tracker.live.total() == 7 * KIB
    assert tracker.peak.total() == 8 * KIB
    del second, third
    assert tracker.live.total() == 0
    assert tracker.peak.total() == 8 * KIB


def test_a_view_is_not_counted_and_keeps_its_storage(tracker: StorageTracker) -> None:
    whole = kib(4)
    views = [whole[:10], whole.view(2, -1).T, whole.detach()]
    assert tracker.live.total() == 4 * KIB
    del whole
    assert tracker.live.total() == 4 * KIB
    del views
    assert tracker.live.total() == 0


def test_labels_and_a_new_start(tracker: StorageTracker) -> None:
    with tracker.labelled("one"):
        one = kib(4)
        gone = kib(8)
    del gone
    tracker.restart()
    with tracker.labelled("two"):
        two = kib(1)
    assert +tracker.peak == {"one": 4 * KIB, "two": KIB}
    tracker.relabel(one, "two")
    assert +tracker.live == {"two": 5 * KIB}
    del one, two


def test_what_lies_on_the_host_is_left_out() -> None:
    fake = FakeTensorMode()
    with fake:
        host = kib(4)
    tracker = StorageTracker(fake)
    tracker.ignore(host)
    with tracker:
        made = host + 1
        assert tracker.live.total() == 4 * KIB
        del made


def test_what_runs_once_counts_as_if_it_ran_again(tracker: StorageTracker) -> None:
    calls = []

    def work(value: torch.Tensor) -> torch.Tensor:
        calls.append(value)
        return (value * 2).repeat(4)[:1] + 1  # 1 + 4 parts at its peak

    once = tracker.run_once(work)
    with torch.no_grad():
        value = kib(1)
        once(value)
        first = tracker.peak.total()
        held = kib(16)
        once(value)
    calls.clear()
    assert tracker.peak.total() == first + 16 * KIB
    del held


def test_backward_of_shared_keys_takes_their_copies_and_the_sum_in_float32_on_a_gpu_alone() -> None:
    def highest(gpu: bool) -> int:
        with StorageTracker(FakeTensorMode(allow_non_fake_inputs=True)) as tracker, fused_kernels(gpu=gpu):
            query = torch.empty(1, 4, 64, 16, requires_grad=True)
            key = torch.empty(1, 2, 64, 16, requires_grad=True)
            attend = nn.functional.scaled_dot_product_attention
            result = attend(query, key, key, is_causal=True, enable_gqa=True)
            tracker.restart()
            result.backward(torch.empty_like(result))
            return tracker.peak.total()

    query_bytes = 4 * 64 * 16 * 4
    assert 1 * query_bytes < highest(True) - highest(False) <= 3 * query_bytes


@pytest.mark.parametrize("order", ["in turn", "mixed"])
def test_passing_over_equal_blocks_changes_no_peak(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    monkeypatch.setattr(_in_blocks, "FORWARD_NUMBERS", 3 * 9 * 32)
    monkeypatch.setattr(_in_blocks, "BACKWARD_NUMBERS", 2 * 9 * 32)

    def peak(few: bool) -> tuple[int, int]:
        calls = 0
        direction = DifferentialMerger._paper_direction

        def counted(*arguments: Any) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return direction(*arguments)

        monkeypatch.setattr(DifferentialMerger, "_paper_direction", counted)
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with StorageTracker(fake) as tracker:
            merger = DifferentialMerger(dim=32, query_dim=32)
            patches = torch.empty(40, 9, 32, requires_grad=True)
            anchors = torch.empty(3, 9, 32, requires_grad=True)
            anchor_of = torch.arange(40) * 3 // 40 if order == "in turn" else torch.arange(40) % 3
            query = torch.empty(32)
            if few:
                with few_blocks():
                    merger(patches, anchors, anchor_of, query).sum().backward()
            else:
                merger(patches, anchors, anchor_of, query).sum().backward()
            monkeypatch.setattr(DifferentialMerger, "_paper_direction", direction)
            return tracker.peak.total(), calls

    (some, some_calls), (every, every_calls) = peak(True), peak(False)
    assert some == every
    assert some_calls < every_calls
