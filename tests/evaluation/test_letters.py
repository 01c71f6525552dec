"""Which option a generated answer names, by each rule."""

from __future__ import annotations

import pytest

from vilamp.benchmarks._letters import before_bracket, first_capital, sturdy


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B) A door.", "B"),
        ("The correct answer is C.", "C"),
        ("The best option is C", "C"),
        ("", None),
        ("none of these", None),
        ("I think it is the window", None),
        ("A, B", "A"),
        # What the published script does, and nobody would expect:
        ("Best answer: C", "B"),
        ("Based on the video, C", "B"),
        ("Clearly D", "C"),
    ],
)
def test_the_first_capital(text: str, letter: str | None) -> None:
    assert first_capital(text, "ABCD") == (None if letter is None else "ABCD".index(letter))


@pytest.mark.parametrize(
    ("text", "letter"),
    [("B) dog", "B"), ("B", "B"), ("F)", "F"), ("B. dog", None), ("", None), (")", None), ("dog)", None), ("AB", None)],
)
def test_the_letter_before_the_bracket(text: str, letter: str | None) -> None:
    assert before_bracket(text, "ABCDEF") == (None if letter is None else "ABCDEF".index(letter))


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" b) ", "B"),
        ("**B**", "B"),
        ("(B) a dog", "B"),
        ("B. a dog", "B"),
        ("B: a dog", "B"),
        ("B because it barks", "B"),
        ("The answer is B", "B"),
        ("The answer is: (B).", "B"),
        ("I think the correct option is **D**.", "D"),
        ("Option C, as the answer is not A but choice D", "D"),
        ("It must be (C), the cow.", "C"),
        ("A man walks. The answer is C.", "C"),
        ("The answer is b.", "B"),
        ("answer: (c).", "C"),
        ("a", "A"),
        ("A", "A"),
        ("", None),
        ("a dog", None),
        ("A man walks", None),
        ("The answer is a dog", None),
        ("A and B", None),
        ("A, B", None),
        ("(A) or (B)", None),
        ("The answer is A or B", None),
        ("either (A) or maybe (B)", None),
        ("E", None),
        ("C's hand", None),
        ("dog", None),
    ],
)
def test_the_sturdy_rule(text: str, letter: str | None) -> None:
    assert sturdy(text, 4) == (None if letter is None else "ABCD".index(letter))
