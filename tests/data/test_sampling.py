"""Which frames are taken: the one on display at k / fps, each once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilamp.data.sampling import plan_frames, spread


def _even(frames: int, rate: float) -> tuple[np.ndarray, float]:
    return np.arange(frames) / rate, frames / rate


@st.composite
def videos(draw: st.DrawFn) -> tuple[np.ndarray, float]:
    """Any video with whole milliseconds as its times: even, uneven, one frame, long stills."""
    gaps = draw(st.lists(st.integers(1, 3000), min_size=1, max_size=40))
    times = np.cumsum([0, *gaps]) / 1000
    return times[:-1], float(times[-1])


@given(videos(), st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 10.0, 29.97, 1000.0]))
def test_a_frame_is_taken_if_and_only_if_it_is_on_display_at_one_of_the_times(
    video: tuple[np.ndarray, float], fps: float
) -> None:
    starts, end = video
    times = [k / fps for k in range(int(end * fps) + 2) if k / fps < end - 1e-6]
    on_display = sorted({max(f for f in range(len(starts)) if starts[f] <= time + 1e-6) for time in times})
    assert plan_frames(starts, end, fps).tolist() == on_display


@pytest.mark.parametrize("rate", [30000 / 1001, 24000 / 1001, 60000 / 1001])
def test_ntsc_rates_do_not_drift_over_an_hour(rate: float) -> None:
    starts, end = _even(int(3600 * rate), rate)
    taken = starts[plan_frames(starts, end, 1.0)]
    assert len(taken) == 3600
    late = np.arange(3600) - taken
    assert late.min() >= -1e-6
    assert late.max() < 1 / rate


def test_a_rate_above_the_videos_own_takes_every_frame_once() -> None:
    assert plan_frames(*_even(20, 10.0), 30.0).tolist() == list(range(20))


def test_equal_rates_take_every_frame_in_spite_of_rounding() -> None:
    for rate in (3.0, 7.0, 29.97, 59.94):
        assert len(plan_frames(*_even(1000, rate), rate)) == 1000


def test_less_than_a_frame_a_second() -> None:
    assert plan_frames(*_even(100, 10.0), 0.25).tolist() == [0, 40, 80]


def test_a_still_is_taken_once_and_the_frame_after_it_at_its_time() -> None:
    assert plan_frames(np.array([0.0, 0.1, 60.5, 61.0]), 62.0, 1.0).tolist() == [0, 1, 3]


def test_one_frame_is_always_taken() -> None:
    assert plan_frames(np.array([0.0]), 0.0, 1.0).tolist() == [0]
    assert plan_frames(np.array([0.0, 1e-7]), 1e-7, 1.0).tolist() == [0]


def test_a_damaged_timestamp_costs_no_memory() -> None:
    age_of_the_universe = 4.3e17
    assert plan_frames(np.array([0.0, 1.0, age_of_the_universe]), age_of_the_universe, 1000.0).tolist() == [0, 1]


def test_max_frames_are_spread_over_all_that_would_be_taken() -> None:
    taken = plan_frames(*_even(1000, 10.0), 1.0, max_frames=4)
    assert taken.tolist() == [120, 370, 620, 870]
    assert plan_frames(*_even(1000, 10.0), 1.0, max_frames=100).tolist() == list(range(0, 1000, 10))


@given(st.data(), st.integers(1, 500))
def test_spread_takes_the_middles_of_equal_stretches(data: st.DataObject, total: int) -> None:
    count = data.draw(st.integers(1, total))
    places = spread(total, count)
    middles = (np.arange(count) + 0.5) * total / count
    assert len(places) == count
    assert (np.diff(places) > 0).all()
    assert (np.abs(places - middles) < 1).all()


@pytest.mark.parametrize("count", [0, 4])
def test_spread_takes_no_more_than_there_are(count: int) -> None:
    with pytest.raises(ValueError, match="count must be 1 to 3"):
        spread(3, count)


@pytest.mark.parametrize(
    ("starts", "end", "fps"),
    [([], 1.0, 1.0), ([[0.0]], 1.0, 1.0), ([1.0, 2.0], 3.0, 1.0), ([0.0, 2.0, 1.0], 3.0, 1.0), ([0.0, 2.0], 1.0, 1.0),
     ([0.0], 1.0, 0.0), ([0.0], 1.0, float("nan")), ([0.0], 1.0, float("inf"))],
)  # fmt: skip
def test_what_is_no_video_is_refused(starts: list[float], end: float, fps: float) -> None:
    with pytest.raises(ValueError, match=r"starts|fps"):
        plan_frames(np.array(starts), end, fps)
