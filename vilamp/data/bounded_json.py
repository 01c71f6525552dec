"""JSON from files that nobody has looked at."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

MAX_DEPTH = 32
"""Of lists and objects within each other; what is read here needs five."""

TOO_DEEP = f"lists and objects are more than {MAX_DEPTH} deep within each other"

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def parse_json(source: bytes) -> Any:
    """Parse JSON of at most :data:`MAX_DEPTH` levels; the caller bounds its length.

    Raises:
        ValueError: no JSON in UTF-8, too deep, a name that is twice in an object, or a whole number of more digits than
            Python takes.
    """
    text = source.decode("utf-8-sig")
    if source.count(b"[") + source.count(b"{") > MAX_DEPTH:  # else it cannot be too deep
        _check_depth(text)
    return json.loads(text, object_pairs_hook=unique)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these names and values.

    Raises:
        ValueError: a name comes twice; Python would take the last.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"{repeated(name for name, _ in pairs)[:80]!r} is there more than once")
    return found


def repeated(names: Iterable[str]) -> str:
    """The first name that comes more than once; the empty one may."""
    return next((name for name, count in Counter(names).items() if name and count > 1), "")


def _check_depth(text: str) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = match[0][0]
        depth += (first in "[{") - (first in "]}")
        if depth > MAX_DEPTH:
            raise ValueError(TOO_DEEP)
