"""Multiple-choice rows: the options, and which of them the answer means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vilamp.data.bounded_json import parse_json

OPTION_NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ANSWERS = ("letter", "index", "text")

_COLUMN_FAMILIES = ("a{0}", "option{0}", "option_{0}", "choice{0}", "choice_{0}")
_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]\s*(?=\S)")
_LETTER = re.compile(r"\(?([A-Za-z])[.):]?\)?")


class RowError(Exception):
    """A row cannot be used; ``reason`` and ``video`` go into the report."""

    def __init__(self, reason: str, detail: str, video: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.video = video or ""


def read_options(value: Any, fields: Mapping[str, Any], video: str) -> list[str]:
    """The options of a row without their letters: those of the options' column, or of columns such as a0, a1 ...

    Returns:
        Two to 26 texts, or none where the row has no options.
    """
    if isinstance(value, str):
        value = _list_in_text(value)
    if value is None:
        value = _from_columns(fields)
    if not value:
        return []
    # What is no text or number would become one that nobody meant: "{'id': 'A', 'text': ...".
    plain = isinstance(value, list) and not any(isinstance(option, list | dict | bytes) for option in value)
    texts = ["" if option is None else str(option).strip() for option in value] if plain else []
    if not 2 <= len(texts) <= len(OPTION_NAMES) or not all(texts):
        raise RowError(
            "bad_options",
            f"2 to {len(OPTION_NAMES)} options are needed, each a text or a number, got {repr(value)[:80]}",
            video,
        )
    letters = [_LETTERED.match(text) for text in texts]
    if all(match and match[1] == OPTION_NAMES[i] for i, match in enumerate(letters)):
        return [_LETTERED.sub("", text, count=1) for text in texts]
    return texts


def with_options(question: str, options: Sequence[str]) -> str:
    """The question as the language model is asked it; the answer is the letter."""
    lines = [f"{letter}. {option}" for letter, option in zip(OPTION_NAMES, options, strict=False)]
    return "\n".join([question, *lines, "Answer with the letter of the right option."])


def pick_option(options: Sequence[str], answer: Any, answers: str | None, video: str) -> int:
    """The number of the option that an answer means.

    Args:
        options: as :func:`read_options` gives them.
        answer: a letter, a number from 0, or an option's text.
        answers: which of :data:`ANSWERS` it is; None takes the one that fits.
        video: for the report.

    Raises:
        RowError: ``no_such_option``, or ``ambiguous_answer`` where it could be more than one.
    """
    text = str(answer).strip()
    readings: dict[str, int] = {}
    letter, plain = _LETTER.fullmatch(text), _LETTERED.sub("", text, count=1)
    if letter and letter[1].upper() in OPTION_NAMES[: len(options)]:
        readings["letter"] = OPTION_NAMES.index(letter[1].upper())
    if re.fullmatch(r"\d{1,2}(?:\.0)?", text) and not isinstance(answer, bool) and int(float(text)) < len(options):
        readings["index"] = int(float(text))
    matches = [number for number, option in enumerate(options) if option in (text, plain)]
    if len(matches) == 1 and not (isinstance(answer, int) and answers is None):
        readings["text"] = matches[0]
    meant = {readings[answers]} if answers in readings else set() if answers else set(readings.values())
    if len(meant) == 1:
        return meant.pop()
    if meant:
        kinds = " or ".join(f"the {kind} of option {OPTION_NAMES[number]}" for kind, number in readings.items())
        raise RowError("ambiguous_answer", f"{text[:40]!r} can be {kinds}; --answers says which is meant", video)
    what = f"no {answers} of an option" if answers else "no letter, number or text of an option"
    raise RowError("no_such_option", f"{text[:80]!r} is {what} of {list(options)!r}", video)


def _list_in_text(value: str) -> list[Any] | None:
    """A list in a cell of a CSV: as JSON, or one option a line."""
    if value.lstrip().startswith("["):
        try:
            found = parse_json(value.encode())
        except ValueError:
            return [value]  # refused as one option
        return found if isinstance(found, list) else [value]
    return value.splitlines()


def _from_columns(fields: Mapping[str, Any]) -> list[Any]:
    """Options in columns of their own, numbered from 0 or 1, or named by the letters themselves."""
    for family in _COLUMN_FAMILIES:
        for names in ([str(i) for i in range(26)], [str(i) for i in range(1, 27)], list(OPTION_NAMES)):
            found = _run(fields, [family.format(name) for name in names])
            if found:
                return found
    return _run(fields, list(OPTION_NAMES))


def _run(fields: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
    """The values of the columns from the first on, up to one that is missing or empty; none where there is only one."""
    values = []
    for column in columns:
        if fields.get(column) in (None, ""):
            break
        values.append(fields[column])
    return values if len(values) > 1 else []
