"""What the folder of a run or of an evaluation tells, whether that has ended, still goes on, or was killed."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilamp.errors import DataError
from vilamp.report.charts import Row
from vilamp.report.evaluated import ANSWERS, RESULT, Evaluated, read_evaluated
from vilamp.report.files import read_lines, read_object
from vilamp.report.samples import Samples, read_samples

METRICS, CURVES = "metrics.json", "metrics.csv"
LISTED = 100
"""Most unusable samples that are listed."""
KIND, DEPTH = "val/accuracy/", "val/accuracy_by_depth/"


@dataclass(frozen=True)
class RunFolder:
    """The files of a run or of an evaluation, read.

    Attributes:
        path: of the folder.
        ended: whether the run wrote its final figures.
        figures: those, or the last of each that a run without an end has logged.
        rows: of ``metrics.csv``.
        evaluated: the scores on a benchmark; None for a run that trained or validated.
        config: the text of ``config.yaml``.
        skipped: rows of ``quarantine.jsonl`` and of questions that were not asked, the first :data:`LISTED`.
        samples: what was looked at closely.
    """

    path: Path
    ended: bool
    figures: dict[str, float]
    rows: list[Row]
    evaluated: Evaluated | None
    config: str
    skipped: list[dict[str, Any]]
    samples: Samples

    def below(self, prefix: str) -> dict[str, float]:
        """The figures whose name begins so, without that."""
        return {name.removeprefix(prefix): v for name, v in self.figures.items() if name.startswith(prefix)}


def read_folder(path: Path) -> RunFolder:
    """Read what there is.

    Raises:
        DataError: it is no run's folder, or a file in it cannot be read.
    """
    metrics, table = path / METRICS, path / CURVES
    evaluated = read_evaluated(path)
    if not (metrics.is_file() or table.is_file() or evaluated):
        raise DataError(
            f"{path} holds none of {METRICS}, {CURVES}, {RESULT} and {ANSWERS}; name the folder of a run or of an "
            "evaluation, as outputs/DAY/TIME"
        )
    rows = _rows(table) if table.is_file() else []
    figures = read_object(metrics) if metrics.is_file() else _last(rows)
    skipped = read_lines(path / "quarantine.jsonl")
    if evaluated:
        figures |= evaluated.figures
        skipped += evaluated.not_asked
    config = path / "config.yaml"
    return RunFolder(
        path=path,
        ended=metrics.is_file() or (path / RESULT).is_file(),
        figures={name: float(value) for name, value in figures.items()},
        rows=rows,
        evaluated=evaluated,
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
        skipped=skipped[:LISTED],
        samples=read_samples(path),
    )


def _rows(file: Path) -> list[Row]:
    with file.open(newline="", encoding="utf-8", errors="replace") as lines:
        # A killed run may leave a last line with fewer or more fields than columns.
        return [{name: value or "" for name, value in row.items() if name} for row in csv.DictReader(lines)]


def _last(rows: list[Row]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            try:
                figures[name] = float(value)
            except ValueError:
                continue  # an empty field
    return figures
