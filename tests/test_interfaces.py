"""What the contract itself checks: selections, the arguments of selectors and mergers, the relevance of frames."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from vilamp.interfaces import (
    FrameMerger,
    FrameSelector,
    Selection,
    check_merger_inputs,
    check_selector_inputs,
    frame_relevance,
)

HUGE = 3e38
"""The sum of two such numbers is infinite in float32 and bfloat16; the numbers are not."""


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@given(st.sets(st.integers(0, 10**6)))
def test_a_selection_holds_ascending_frames(frames) -> None:
    keyframes = torch.tensor(sorted(frames), dtype=torch.int64)
    selection = Selection(keyframes)
    assert selection.keyframes is keyframes and selection.relevance is None


@given(st.lists(st.integers(-3, 20)).filter(lambda frames: frames != sorted({frame for frame in frames if frame >= 0})))
def test_frames_in_another_order_twice_or_negative_are_told(frames) -> None:
    with pytest.raises(ValueError, match="keyframes must be ascending, unique and not negative, got ") as caught:
        Selection(torch.tensor(frames, dtype=torch.int64))
    assert str(caught.value).endswith(str(frames))


@pytest.mark.parametrize(
    ("keyframes", "seen"),
    [
        (torch.tensor([1, 2], dtype=torch.int32), r"torch\.int32\[2\]"),
        (torch.tensor([1.0, 2.0]), r"torch\.float32\[2\]"),
        (torch.tensor([True, False]), r"torch\.bool\[2\]"),
        (torch.tensor([[1, 2]]), r"torch\.int64\[1, 2\]"),
        (torch.tensor(3), r"torch\.int64\[\]"),
    ],
    ids=str,
)
def test_keyframes_of_another_type_or_shape_are_told(keyframes, seen) -> None:
    with pytest.raises(ValueError, match=rf"keyframes must be int64\[K\], got {seen}$"):
        Selection(keyframes)


def test_a_selection_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Selection(torch.tensor([1])).keyframes = torch.tensor([2])


@pytest.mark.parametrize("base", [FrameSelector, FrameMerger])
def test_a_plugin_without_forward_cannot_be_built(base) -> None:
    with pytest.raises(TypeError, match="abstract method"):
        type("Empty", (base,), {})()


def test_a_merger_makes_one_token_in_the_vision_space_unless_it_says_otherwise() -> None:
    assert (FrameMerger.tokens_per_frame, FrameMerger.space) == (1, "vision")


def selector_arguments(**changes: object) -> dict[str, object]:
    good = {"frames": noise(5, 4), "query": noise(4), "num_keyframes": 3, "timestamps": torch.arange(5.0)}
    return good | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_keyframes": 99},
        {"frames": noise(1, 4), "timestamps": torch.zeros(1)},
        {"frames": noise(5, 4).bfloat16(), "query": noise(4).bfloat16()},
        {"frames": torch.full((5, 4), HUGE)},
        {"frames": torch.full((5, 4), HUGE, dtype=torch.bfloat16)},
    ],
    ids=str,
)
def test_good_arguments_of_a_selector_pass(changes) -> None:
    check_selector_inputs(**selector_arguments(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": noise(4)}, r"frames must be float\[N, Ds\] with N >= 1, got \[4\]"),
        ({"frames": noise(0, 4)}, r"frames must be float\[N, Ds\] with N >= 1, got \[0, 4\]"),
        ({"frames": noise(1, 5, 4)}, r"frames must be .*, got \[1, 5, 4\]"),
        ({"query": noise(3)}, r"query must be float\[4\] to match frames, got \[3\]"),
        ({"query": noise(1, 4)}, r"query must be .*, got \[1, 4\]"),
        ({"timestamps": torch.arange(6.0)}, r"timestamps must be float\[5\] to match frames, got \[6\]"),
        ({"num_keyframes": 0}, "num_keyframes must be at least 1, got 0"),
        ({"num_keyframes": -2}, "num_keyframes must be at least 1, got -2"),
        ({"frames": noise(5, 4).index_fill(0, torch.tensor([2]), torch.nan)}, "frames holds NaN or infinity"),
        ({"frames": torch.tensor([torch.inf, -torch.inf, 0, 0]).expand(5, 4)}, "frames holds NaN or infinity"),
        ({"query": torch.tensor([0, 0, 0, -torch.inf])}, "query holds NaN or infinity"),
        ({"timestamps": torch.tensor([0, 1, 2, 3, torch.nan])}, "timestamps holds NaN or infinity"),
        ({"frames": torch.tensor([HUGE, HUGE, torch.inf, 0]).expand(5, 4)}, "frames holds NaN or infinity"),
    ],
)
def test_bad_arguments_of_a_selector_are_told(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_selector_inputs(**selector_arguments(**changes))


def merger_arguments(**changes: object) -> dict[str, object]:
    good = {
        "patches": noise(3, 4, 6),
        "anchors": noise(2, 4, 6),
        "anchor_of": torch.tensor([-1, 0, 1]),
        "query": noise(5),
        "dim": 6,
        "query_dim": 5,
    }
    return good | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dim": None, "query_dim": None},
        {"patches": noise(0, 4, 6), "anchor_of": torch.zeros(0, dtype=torch.int64)},
        {"anchors": noise(0, 4, 6), "anchor_of": torch.tensor([-1, -1, -1])},
        {"patches": torch.full((3, 4, 6), HUGE)},
    ],
    ids=str,
)
def test_good_arguments_of_a_merger_pass(changes) -> None:
    check_merger_inputs(**merger_arguments(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patches": noise(4, 6)}, r"patches must be float\[n, P, D\] with P >= 1, got \[4, 6\]"),
        ({"patches": noise(3, 0, 6)}, r"patches must be .*, got \[3, 0, 6\]"),
        ({"anchors": noise(2, 6)}, r"anchors must be float\[A, 4, 6\], got \[2, 6\]"),
        ({"anchors": noise(2, 3, 6)}, r"anchors must be float\[A, 4, 6\], got \[2, 3, 6\]"),
        ({"anchors": noise(2, 4, 7)}, r"anchors must be float\[A, 4, 6\], got \[2, 4, 7\]"),
        ({"anchor_of": torch.tensor([0, 1])}, r"anchor_of must be int64\[3\], got torch\.int64\[2\]"),
        ({"anchor_of": torch.zeros(3)}, r"anchor_of must be int64\[3\], got torch\.float32\[3\]"),
        ({"anchor_of": torch.tensor([0, 1, 2])}, r"anchor_of must lie in -1\.\.1, got \[0, 1, 2\]"),
        ({"anchor_of": torch.tensor([-2, 0, 1])}, r"anchor_of must lie in -1\.\.1, got \[-2, 0, 1\]"),
        ({"anchors": noise(0, 4, 6)}, r"anchor_of must lie in -1\.\.-1, got \[-1, 0, 1\]"),
        ({"query": noise(2, 5)}, r"query must be float\[Ds\], got \[2, 5\]"),
        ({"dim": 7}, r"patches must be 7 wide, as the merger was built, got \[3, 4, 6\]"),
        ({"query_dim": 7}, r"query must be 7 wide, as the merger was built, got \[5\]"),
        ({"patches": noise(3, 4, 6) * torch.nan}, "patches holds NaN or infinity"),
        ({"anchors": noise(2, 4, 6) / 0}, "anchors holds NaN or infinity"),
        ({"query": noise(5) * torch.inf}, "query holds NaN or infinity"),
    ],
)
def test_bad_arguments_of_a_merger_are_told(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_merger_inputs(**merger_arguments(**changes))


def unit(*shape: int) -> Tensor:
    return F.normalize(noise(*shape), dim=-1)


@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("to", [Tensor.float, Tensor.double, Tensor.bfloat16, Tensor.half], ids=lambda to: to.__name__)
def test_relevance_is_the_cosine_in_at_least_float32(to: Callable[[Tensor], Tensor], length: int) -> None:
    frames, query = to(unit(length, 8)), to(unit(8))
    relevance = frame_relevance(frames, query)
    assert relevance.dtype == torch.promote_types(frames.dtype, torch.float32)
    torch.testing.assert_close(relevance.double(), frames.double() @ query.double(), rtol=0, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frame_relevance(frames, query), relevance)


def test_relevance_takes_no_part_in_gradients() -> None:
    assert not frame_relevance(unit(5, 4).requires_grad_(), unit(4).requires_grad_()).requires_grad
