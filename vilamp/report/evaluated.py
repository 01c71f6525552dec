"""What an evaluation left: its result, or the answers so far of one that has not ended."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilamp.errors import DataError
from vilamp.report.files import read_lines, read_object

RESULT, ANSWERS = "result.json", "answers.jsonl"
SHOWN = ("visual_tokens", "keyframe_recall")
"""Of the result's ``sampling``."""
SO_FAR = "accuracy_answered"
"""The one score that answers tell by themselves: the share of right ones among the questions that were asked."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation on a benchmark.

    Attributes:
        headline: the name of the score that counts most.
        scores: way of answering -> figures.
        figures: counts, means, memory and seconds.
        notes: of the benchmark's.
        not_asked: the rows of questions that were not asked, with ``key``, ``reason`` and ``detail``.
    """

    headline: str
    scores: dict[str, dict[str, float]]
    figures: dict[str, float]
    notes: list[str]
    not_asked: list[dict[str, Any]]


def read_evaluated(folder: Path) -> Evaluated | None:
    """Of an evaluation that ended its result, else its answers so far; None where neither is there.

    Raises:
        DataError: a file is not what an evaluation writes.
    """
    result = folder / RESULT
    if not (result.is_file() or (folder / ANSWERS).is_file()):
        return None
    answers = _answers(folder)
    try:
        return _ended(read_object(result), answers) if result.is_file() else _so_far(answers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder} holds no evaluation that can be read: {type(error).__name__}: {error}") from error


def _answers(folder: Path) -> list[dict[str, Any]]:
    """A row for each question; what was missing at first may have been asked later."""
    files = [folder / ANSWERS, *sorted(folder.glob("answers.rank*.jsonl"))]
    rows = sorted((row for file in files for row in read_lines(file)), key=lambda row: not row.get("reason"))
    return list({row.get("key"): row for row in rows}.values())


def _ended(result: dict[str, Any], answers: list[dict[str, Any]]) -> Evaluated:
    counts, sampling = result["counts"], result["sampling"]
    figures = {
        "questions": counts["questions"],
        "asked": counts["asked"],
        **{name: sampling[name] for name in SHOWN if name in sampling},
        **{f"memory/{name}": value for name, value in result["memory"].items()},
        "seconds": result["seconds"],
    }
    return Evaluated(result["headline"], result["scores"], figures, result["notes"], _not_asked(answers))


def _so_far(answers: list[dict[str, Any]]) -> Evaluated:
    right: dict[str, list[bool]] = defaultdict(list)
    for row in answers:
        for way, is_right in row["right"].items():
            right[way].append(is_right)
    scores = {way: {SO_FAR: sum(rights) / len(rights)} for way, rights in right.items()}
    not_asked = _not_asked(answers)
    figures = {
        "asked": float(len(answers) - len(not_asked)),
        "seconds": sum(float(row["seconds"]) for row in answers),
    }
    return Evaluated(SO_FAR, scores, figures, [], not_asked)


def _not_asked(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in answers if row["reason"]]
