"""The benchmark of grouping by length counts what it says."""

from __future__ import annotations

import json

import length_groups
import numpy as np
import pytest

from vilamp.data.order import LengthGroups


def test_equal_lengths_cost_nothing_and_unequal_ones_what_the_longest_takes() -> None:
    assert length_groups.cost(np.full(12, 7), 2, 3, None) == (1, 1)
    padded, waited = length_groups.cost(np.array([1, 9]), 2, 1, None)
    assert (padded, waited) == (pytest.approx(18 / 10), 1)
    padded, waited = length_groups.cost(np.array([1, 9]), 1, 2, None)
    assert (padded, waited) == (1, pytest.approx(18 / 10))


def test_groups_pad_and_wait_less(capsys: pytest.CaptureFixture[str]) -> None:
    length_groups.main(["--quick", "--json"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert len(rows) == 2 * len(length_groups.SHAPES)
    for row in rows:
        assert 1 <= row["padded_grouped"] <= row["padded_shuffled"]
        assert 1 <= row["waited_grouped"] <= row["waited_shuffled"]


def test_groups_that_steps_fit_into_hold_their_frames_together() -> None:
    frames = np.repeat([1, 9], 40)
    assert length_groups.cost(frames, 4, 2, LengthGroups(8, frames))[0] < length_groups.cost(frames, 4, 2, None)[0]
