"""The contract of a selector, and what makes AKS what it is."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor
from vilamp_aks import AdaptiveKeyframes

from vilamp.config import compose
from vilamp.errors import ConfigError
from vilamp.testing import selector_checks

QUERY = torch.tensor([1.0, 0.0])


def select(
    selector: AdaptiveKeyframes, relevance: list[float], count: int, times: list[float] | None = None
) -> list[int]:
    """The keyframes of a video whose frames have exactly these cosines with the query."""
    cosine = torch.tensor(relevance)
    frames = torch.stack([cosine, (1 - cosine**2).sqrt()], dim=1)
    timestamps = torch.arange(len(relevance), dtype=torch.float64) if times is None else torch.tensor(times)
    return selector(frames, QUERY, count, timestamps=timestamps).keyframes.tolist()


def noise(length: int, seed: int = 0) -> Tensor:
    return torch.rand(length, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("check", selector_checks(), ids=str)
def test_contract(check) -> None:
    check(AdaptiveKeyframes)


def test_the_yaml_builds_it() -> None:
    selector = instantiate(compose("train", ["selector=aks", "selector.threshold=0.5"]).selector)
    assert isinstance(selector, AdaptiveKeyframes)
    assert (selector.threshold, selector.max_splits) == (0.5, 5)


def test_one_moment_that_stands_out_gets_all_keyframes() -> None:
    relevance = [0.1] * 100
    relevance[40:44] = [0.8, 0.9, 0.85, 0.7]  # the mean of the best is 0.89 of the range above the mean of all
    assert select(AdaptiveKeyframes(threshold=0.8), relevance, 4) == [40, 41, 42, 43]


def test_where_nothing_stands_out_every_part_gets_its_best_frame() -> None:
    relevance = noise(64)
    best_of_each_8 = (relevance.view(8, 8).argmax(dim=1) + torch.arange(0, 64, 8)).tolist()
    assert select(AdaptiveKeyframes(threshold=2.0), relevance.tolist(), 8) == best_of_each_8


def test_a_part_is_judged_on_its_own() -> None:
    # The first half holds one bright moment in the dark, the second half is all the same.
    relevance = [0.0] * 64 + [0.5] * 64
    relevance[20:22] = [1.0, 1.0]
    assert select(AdaptiveKeyframes(threshold=0.8, max_splits=1), relevance, 4) == [20, 21, 64, 65]
    assert select(AdaptiveKeyframes(threshold=0.8, max_splits=2), relevance, 4) == [20, 21, 64, 96]


@pytest.mark.parametrize("settings", [{"threshold": 0.0}, {"max_splits": 0}])
def test_the_extreme_settings_are_plain_top_k(settings) -> None:
    relevance = noise(50)
    expected = relevance.topk(6).indices.sort().values.tolist()
    assert select(AdaptiveKeyframes(**settings), relevance.tolist(), 6) == expected


def test_a_static_video_is_covered_evenly() -> None:
    assert select(AdaptiveKeyframes(), [0.3] * 64, 4) == [0, 16, 32, 48]


def test_an_odd_keyframe_goes_to_the_more_relevant_half() -> None:
    dull, bright = [0.1, 0.2, 0.1, 0.2], [0.5, 0.6, 0.5, 0.6]
    always_split = AdaptiveKeyframes(threshold=2.0, max_splits=1)
    assert select(always_split, dull + bright, 3) == [1, 5, 7]
    assert select(always_split, bright + dull, 3) == [1, 3, 5]


def test_halves_are_halves_of_time() -> None:
    # Ten frames in the first ten seconds, two in the next ninety: the second half of the time has two frames.
    times = [float(second) for second in range(10)] + [60.0, 100.0]
    chosen = select(AdaptiveKeyframes(threshold=2.0, max_splits=1), [0.5] * 12, 4, times)
    assert chosen == [0, 1, 10, 11]


def test_a_half_with_too_few_frames_passes_its_keyframes_on() -> None:
    times = [float(second) for second in range(11)] + [100.0]
    chosen = select(AdaptiveKeyframes(threshold=2.0, max_splits=1), [0.5] * 12, 6, times)
    assert chosen == [0, 1, 2, 3, 4, 11]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 31, 40, 100])
@pytest.mark.parametrize("seed", range(5))
def test_exactly_min_of_k_and_n_frames_come_back(count: int, seed: int) -> None:
    assert len(select(AdaptiveKeyframes(threshold=0.3), noise(40, seed).tolist(), count)) == min(count, 40)


@pytest.mark.parametrize(
    ("settings", "named"), [({"threshold": -0.1}, "threshold"), ({"max_splits": -1}, "max_splits")]
)
def test_a_negative_setting_is_told(settings, named) -> None:
    with pytest.raises(ConfigError, match=rf"selector\.{named} must be 0 or more, got -"):
        AdaptiveKeyframes(**settings)
