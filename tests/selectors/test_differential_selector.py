"""DKS against Alg. 1 of the paper as it is written there, over all pairs of frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from vilamp.errors import ConfigError
from vilamp.selectors import differential
from vilamp.selectors.differential import BLOCK, DifferentialSelector, fill_gaps
from vilamp.testing.kit import NoTensorAbove, seeded

WIDTH = 16
SMALL = {"BLOCK": 12, "GROWTH": 2, "SAMPLE": 40}
"""Sizes with which few frames make many blocks and shots."""
LENGTHS = st.one_of(st.integers(1, 60), st.integers(1, 400))
QUARTERS = st.integers(-4, 4).map(lambda quarter: quarter / 4)
COUNTS = st.one_of(st.integers(1, 8), st.integers(1, 120))


def select(frames: Tensor, query: Tensor, num_keyframes: int, **settings: float | bool) -> list[int]:
    timestamps = torch.arange(len(frames), dtype=torch.float64)
    selector = DifferentialSelector(**settings)
    return selector(frames, query, num_keyframes, timestamps=timestamps).keyframes.tolist()


def reference(frames: Tensor, query: Tensor, num_keyframes: int, tau: float, floor: float = -1.0) -> list[int]:
    """Alg. 1 over the matrix of all cosines."""
    cosines, relevance = (frames @ frames.T).tolist(), (frames @ query).tolist()
    taken: list[int] = []
    for frame in sorted(range(len(frames)), key=lambda i: (-relevance[i], i)):
        if len(taken) == num_keyframes or relevance[frame] < floor:
            break
        if all(cosines[frame][other] <= tau for other in taken):
            taken.append(frame)
    return sorted(taken)


def shown(length: int, kinds: int, shots: bool, generator: torch.Generator) -> Tensor:
    """int64[N]: the kind of each frame, in any order or one shot of each."""
    drawn = torch.randint(0, kinds, (length,), generator=generator)
    return drawn.sort().values if shots else drawn


def quarters(length: int, kinds: int, seed: int, shots: bool = False) -> tuple[Tensor, Tensor]:
    """Unit frames of ``kinds`` kinds and a query whose cosines are whole quarters, in any float type.

    Each vector has four numbers of +-0.5 and is 0 elsewhere.  So copies, ties in relevance and cosines of exactly tau
    abound, and no rounding decides a case.
    """
    generator = seeded(seed)
    places = torch.rand(kinds + 1, WIDTH, generator=generator).argsort(dim=1)[:, :4]
    signs = torch.randint(0, 2, (kinds + 1, 4), generator=generator) - 0.5
    vectors = torch.zeros(kinds + 1, WIDTH).scatter_(1, places, signs)
    return vectors[shown(length, kinds, shots, generator)], vectors[kinds]


def scenes(length: int, kinds: int, noise: float, seed: int, shots: bool = False) -> tuple[Tensor, Tensor]:
    """Unit frames around ``kinds`` centres and a query near one of them, in float64."""
    generator = seeded(seed)
    centres = torch.randn(kinds, WIDTH, generator=generator, dtype=torch.float64)
    scatter = torch.randn(length + 1, WIDTH, generator=generator, dtype=torch.float64)
    embeddings = F.normalize(centres[shown(length + 1, kinds, shots, generator)] + noise * scatter, dim=-1)
    return embeddings[:-1], embeddings[-1]


class Fetched(TorchDispatchMode):
    """Counts the rows of frames that are copied by ``index_select``, one candidate each."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten.index_select:
            self.rows += len(args[2])
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[{}, SMALL], ids=["as they are", "small"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The constants that decide time only."""
    for name, value in request.param.items():
        monkeypatch.setattr(differential, name, value)


SAME_SIZES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # in all examples of a test


@pytest.mark.usefixtures("sizes")
@SAME_SIZES
@given(LENGTHS, COUNTS, st.sampled_from([1, 2, 10, 100]), st.booleans(), QUARTERS, QUARTERS, st.integers(0, 10**6))
def test_it_is_alg_1_where_copies_and_ties_abound(length, count, kinds, shots, tau, floor, seed) -> None:
    frames, query = quarters(length, kinds, seed, shots)
    chosen = select(frames, query, count, tau=tau, relevance_floor=floor)
    assert chosen == reference(frames, query, count, tau, floor)


@pytest.mark.usefixtures("sizes")
@SAME_SIZES
@given(
    LENGTHS,
    COUNTS,
    st.sampled_from([1, 3, 40, 1000]),
    st.sampled_from([0.01, 0.3, 1.0]),
    st.booleans(),
    st.floats(-1, 1),
    st.floats(-1, 1),
    st.integers(0, 10**6),
)
def test_it_is_alg_1_for_scenes(length, count, kinds, noise, shots, tau, floor, seed) -> None:
    frames, query = scenes(length, kinds, noise, seed, shots)
    chosen = select(frames, query, count, tau=tau, relevance_floor=floor)
    assert chosen == reference(frames, query, count, tau, floor)


@pytest.mark.parametrize("kinds", [1, 20])
def test_a_shot_is_not_walked_through(kinds: int) -> None:
    frames, query = scenes(10_000, kinds, 0.01, seed=0, shots=True)
    with Fetched() as fetched:
        assert len(select(frames, query, 32, tau=0.95)) == kinds
    assert fetched.rows < 1000


@settings(max_examples=30)
@given(LENGTHS, st.sampled_from([1, 10, 1000]), st.integers(0, 10**6))
def test_a_greater_budget_keeps_the_keyframes_of_a_smaller(length, kinds, seed) -> None:
    frames, query = quarters(length, kinds, seed)
    chosen = [set(select(frames, query, count, tau=0.5)) for count in (1, 5, 40)]
    assert chosen[0] <= chosen[1] <= chosen[2]


@settings(max_examples=20)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 10**6))
def test_in_bfloat16_and_under_autocast_it_compares_as_in_float32(length, count, seed) -> None:
    frames, query = scenes(length, 5, 0.1, seed)
    frames, query = frames.bfloat16(), query.bfloat16()
    want = select(frames.float(), query.float(), count, tau=0.99)
    assert select(frames, query, count, tau=0.99) == want
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert select(frames.float(), query.float(), count, tau=0.99) == want


@pytest.mark.parametrize("tau", [-1.0, 0.0, 0.85, 1.0])
@pytest.mark.parametrize("kinds", [1, 5, 10_000])
def test_no_tensor_is_larger_than_a_block_of_frames_or_one_number_a_frame(kinds: int, tau: float) -> None:
    length, count = 10_000, 32
    frames, query = scenes(length, kinds, 0.1, seed=0)
    with NoTensorAbove(max(length, BLOCK * max(WIDTH, count))):
        for fill_up in (False, True):
            select(frames, query, count, tau=tau, fill_up=fill_up)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_is_told_where_the_query_is_zero(value, layout, dtype) -> None:
    frames, _ = scenes(300, 5, 0.1, seed=0)
    frames = frames.to(dtype) if layout == "rows" else frames.to(dtype).T.contiguous().T
    frames[7, 3] = value
    with pytest.raises(ValueError, match="frames holds NaN or infinity"):
        select(frames, torch.eye(WIDTH, dtype=dtype)[0], 4)


def test_at_exactly_tau_a_frame_is_taken() -> None:
    frames = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]])
    assert select(frames, frames[0], 2, tau=0.5) == [0, 1]
    assert select(frames, frames[0], 2, tau=0.4999) == [0]


def test_of_equally_relevant_frames_the_earlier_is_taken() -> None:
    frames = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert select(frames, torch.tensor([1.0, 0.0]), 4, tau=0.9) == [0, 1]


def test_below_the_floor_nothing_is_taken_and_fill_up_fills_every_place() -> None:
    frames, query = quarters(40, 10, seed=0)
    assert float((frames @ query).max()) < 1
    assert select(frames, query, 4, relevance_floor=1.0) == []
    assert len(select(frames, query, 4, relevance_floor=1.0, fill_up=True)) == 4


@pytest.mark.parametrize(
    ("setting", "named"),
    [({"tau": 1.01}, "tau"), ({"tau": float("nan")}, "tau"), ({"relevance_floor": -2.0}, "relevance_floor")],
)
def test_what_is_no_cosine_is_told(setting, named) -> None:
    with pytest.raises(ConfigError, match=rf"selector\.{named} is a cosine and must lie in -1\.\.1, got "):
        DifferentialSelector(**setting)


@given(st.integers(1, 60), st.integers(1, 80), st.data())
def test_fill_up_keeps_what_was_taken_and_fills_all_places(num_frames, num_keyframes, data) -> None:
    taken = data.draw(st.sets(st.integers(0, num_frames - 1), max_size=min(num_frames, num_keyframes)))
    before = torch.tensor(sorted(taken), dtype=torch.int64)
    after = fill_gaps(before, num_frames, num_keyframes).tolist()
    assert taken <= set(after) <= set(range(num_frames))
    assert after == sorted(set(after))
    assert len(after) == min(num_keyframes, num_frames)


def test_fill_up_spreads_over_the_gaps() -> None:
    assert fill_gaps(torch.tensor([50]), 101, 3).tolist() == [25, 50, 76]
