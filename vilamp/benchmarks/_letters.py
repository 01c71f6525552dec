"""Reads the letter of an option in a generated answer, by the rules that the benchmarks' authors use."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vilamp.benchmark import LETTERS

PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
)
"""What the script of Video-MME takes out before it looks.  Two commas are missing in its list, which glues two pairs of
phrases together; so "Best answer: C" stays as it is, and its first capital is B.  Kept, because scores depend on it."""

_PHRASE = re.compile(r"(?:answer|option|choice)\b(?:\s+is)?[\s:=*]*", re.IGNORECASE)


def first_capital(text: str, letters: str) -> int | None:
    """The number of the first of ``letters`` in a text, by the rule of Video-MME's script (LongVideoBench's likewise).

    It is the letter of the first word that has such a capital: "All of them" is A.
    """
    text = text.strip()
    for prefix in PREFIXES:
        text = text.replace(prefix, "")
    found = re.search(f"[{letters}]", text)
    return letters.index(found[0]) if found else None


def before_bracket(text: str, letters: str) -> int | None:
    """The number of the letter before the first closing bracket, else of the whole text (MLVU's rule)."""
    at = text.find(")")
    answer = text if at < 0 else text[max(at - 1, 0) : at]
    return letters.index(answer) if len(answer) == 1 and answer in letters else None


def sturdy(text: str, count: int) -> int | None:
    """The number of the option that a text names, for benchmarks whose authors state no usable rule.

    Taken is the letter that the text begins with if it stands alone ("B", "(B) a dog", "B. a dog"); else the one behind
    the last "answer", "option" or "choice"; else the only one in brackets.  A small letter counts where nothing follows
    it ("b)", "The answer is b.").  Where a second letter follows ("A and B", "A, B") there is no answer to a question
    with one right option.
    """
    letters, text = LETTERS[:count], text.strip(" \n\t*\"'`")
    named = re.compile(rf"\(?([{letters}])\)?(?![\w'])")
    for start in (0, *[phrase.end() for phrase in _PHRASE.finditer(text)][-1:]):
        if alone := re.fullmatch(r"\(?([A-Za-z])[).:]*", text[start:]):
            return _number(alone[1].upper(), letters)
        found = named.match(text, start)
        if found is None:
            continue
        if re.match(rf"\s*(?:,|/|&|and|or)\s*{named.pattern}", text[found.end() :]):
            return None
        if found[0] != "A" or not re.match(r"\s+[a-z]", text[found.end() :]):  # else an article: "A man walks"
            return _number(found[1], letters)
    bracketed = set(re.findall(rf"\(([{letters}])\)", text))
    return _number(bracketed.pop(), letters) if len(bracketed) == 1 else None


def _number(letter: str, letters: str) -> int | None:
    return letters.index(letter) if letter in letters else None


def lettered(options: Sequence[str], layout: str = "{0}. {1}") -> list[str]:
    """One line for each option."""
    return [layout.format(letter, option) for letter, option in zip(LETTERS, options, strict=False)]
