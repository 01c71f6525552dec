"""The timeline in a terminal."""

from __future__ import annotations

import pytest

from vilamp.cli.sparkline import sparkline


def test_each_frame_has_a_column_where_there_is_room() -> None:
    assert sparkline([0, 1, 2, 3], [0.0, 0.7, 0.1, 0.35], [1], 80).splitlines() == ["▁█▂▅", " ▲", "0 s 3 s"]


def test_of_frames_that_share_a_column_the_most_relevant_is_shown() -> None:
    bars, marks, _ = sparkline(range(100), [float(i == 52) for i in range(100)], [52, 99], 10).splitlines()
    assert bars == "▁▁▁▁▁█▁▁▁▁" and marks == "     ▲   ▲"


def test_a_column_without_a_frame_shows_the_one_before() -> None:
    bars, *_ = sparkline([0, 9, 10], [1.0, 0.0, 0.5], [], 3).splitlines()
    assert bars == "██▅"


@pytest.mark.parametrize("times", [[0.0], [5.0, 5.0]])
def test_no_time_at_all(times: list[float]) -> None:
    assert sparkline(times, [0.3] * len(times), times[:1], 80).splitlines()[1] == "▲"


def test_without_relevance_there_are_keyframes_only() -> None:
    assert sparkline([0, 1, 2], None, [2], 80).splitlines() == ["  ▲", "0 s 2 s"]
