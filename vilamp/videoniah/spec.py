"""The specification of a VideoNIAH: which needle goes where in which haystack, and what is asked.

JSON lines.  The first is the head: how it was made and of which files, with their sizes and checksums; every other one
is a case.  No video is written: cases are spliced while they are read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vilamp.disk import partial_of
from vilamp.errors import DataError

FORMAT = "videoniah/1"
AGAIN = "build it anew with `vilamp videoniah build`"


@dataclass(frozen=True)
class File:
    """A video.

    Attributes:
        path: relative to the folder of the specification, with ``/``.
        bytes: its size.
        xxh3: checksum, 128 bits in hex.
        frames: at the specification's rate.
    """

    path: str
    bytes: int
    xxh3: str
    frames: int


@dataclass(frozen=True)
class Case:
    """One question about a needle in a haystack.

    Attributes:
        id: of the question in the file of needles, the length and the depth.
        haystack: its number in the head.
        needle: number of its file in the head.
        length: frames in all.
        depth: share of the haystack's frames that stand before the needle, 0 to 1.
        before: how many these are.
        question: what is asked.
        options: to choose from; none for an open question.
        answer: the right answer, or the letter of the right option.
        kind: groups the questions.
        query: what frames are searched for, where that is not the question.
        evidence: spans in seconds, from the first frame of the whole.
    """

    id: str
    haystack: int
    needle: int
    length: int
    depth: float
    before: int
    question: str
    options: list[str]
    answer: str
    kind: str
    query: str
    evidence: list[list[float]]


@dataclass(frozen=True)
class Spec:
    """All of it.

    Attributes:
        made_by: version of the package.
        seed: what was drawn by.
        fps: frames a second.
        lengths, depths: that there are.
        when_short: what was done with a haystack of too few frames: ``error``, ``join`` or ``loop``.
        files: haystacks and needles.
        haystacks: each the numbers of its files, one after another.
        cases: in the order in which they are asked.
    """

    made_by: str
    seed: int
    fps: float
    lengths: list[int]
    depths: list[float]
    when_short: str
    files: list[File]
    haystacks: list[list[int]]
    cases: list[Case]

    def frames_needed(self, haystack: int) -> int:
        """How many frames of a haystack its longest case has."""
        lengths = [case.length - self.files[case.needle].frames for case in self.cases if case.haystack == haystack]
        return max(lengths, default=0)


def write_spec(spec: Spec, path: Path) -> None:
    """Write the file, as a whole or not at all."""
    head = {"format": FORMAT} | asdict(spec)
    rows = [head, *head.pop("cases")]
    partial = partial_of(path)
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(path)


def read_spec(path: Path) -> Spec:
    """Read one.

    Raises:
        DataError: no such file, or a line that is not as :func:`write_spec` writes it.
    """
    if not path.is_file():
        raise DataError(f"there is no specification {path}; {AGAIN}, or make one with `vilamp videoniah example`")
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{path}, line {number} cannot be read: {error}; {AGAIN}") from error
    found = rows[0].get("format") if rows and isinstance(rows[0], dict) else None
    if found != FORMAT:
        raise DataError(f"{path} is no specification: its first line should have the format {FORMAT!r}, got {found!r}")
    head = {key: value for key, value in rows[0].items() if key != "format"}
    try:
        files = [File(**file) for file in head.pop("files")]
        spec = Spec(**head, files=files, cases=[_case(number, row) for number, row in enumerate(rows[1:], 2)])
        _check(spec)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path} is damaged: {error}; {AGAIN}") from error
    return spec


def _case(number: int, row: Any) -> Case:
    try:
        return Case(**row)
    except TypeError as error:
        raise ValueError(f"line {number}: {error}") from error


def _check(spec: Spec) -> None:
    """Raise ValueError where numbers do not fit together."""
    if not spec.cases:
        raise ValueError("it has no case")
    for case in spec.cases:
        available = sum(spec.files[number].frames for number in spec.haystacks[case.haystack])
        wanted = case.length - spec.files[case.needle].frames
        if not 0 <= case.before <= wanted <= available or wanted == 0:
            raise ValueError(
                f"case {case.id}: {wanted} frames of its haystack, of which {case.before} stand before the needle; "
                f"it has {available}"
            )
