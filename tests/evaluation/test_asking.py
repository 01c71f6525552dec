"""Which questions are answered together."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from vilamp.evaluation.asking import MASK_NUMBERS, together


@given(st.lists(st.integers(0, 12_000), max_size=40), st.integers(1, 8))
def test_every_question_is_answered_once_in_parts_that_are_not_too_large(lengths: list[int], at_once: int) -> None:
    parts = [lengths[some] for some in together(lengths, at_once)]
    assert list(chain(*parts)) == lengths
    assert all(1 <= len(part) <= at_once for part in parts)
    assert all(len(part) == 1 or len(part) * max(part) ** 2 <= MASK_NUMBERS for part in parts)


def test_short_questions_fill_their_parts_and_long_ones_stand_alone() -> None:
    assert [some.stop for some in together([100] * 9, 4)] == [4, 8, 9]
    assert [some.stop for some in together([10_000, 10_000, 100, 100], 4)] == [1, 2, 4]
