"""What a run's folder tells, whether the run has ended, still goes on, or was killed."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilamp.errors import DataError
from vilamp.report.charts import Row
from vilamp.report.samples import Samples, read_samples

METRICS, CURVES, RESULT = "metrics.json", "metrics.csv", "result.json"
LISTED = 100
"""Most unusable samples that are listed."""
KIND, DEPTH = "val/accuracy/", "val/accuracy_by_depth/"


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, read.

    Attributes:
        path: of the folder.
        ended: whether the run wrote its final figures.
        figures: those, or the last of each that a run without an end has logged.
        rows: of ``metrics.csv``.
        scores: way of answering -> figures, of a benchmark.
        config: the text of ``config.yaml``.
        skipped: rows of ``quarantine.jsonl``, the first :data:`LISTED`.
        samples: what was looked at closely.
    """

    path: Path
    ended: bool
    figures: dict[str, float]
    rows: list[Row]
    scores: dict[str, dict[str, float]]
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
    metrics, table, result = (path / name for name in (METRICS, CURVES, RESULT))
    if not (metrics.is_file() or table.is_file() or result.is_file()):
        raise DataError(
            f"{path} holds none of {METRICS}, {CURVES} and {RESULT}; name the folder of a run, as outputs/DAY/TIME"
        )
    rows = _rows(table) if table.is_file() else []
    ended = metrics.is_file() or result.is_file()
    figures = _json(metrics) if metrics.is_file() else _last(rows)
    config = path / "config.yaml"
    return RunFolder(
        path=path,
        ended=ended,
        figures={name: float(value) for name, value in figures.items()},
        rows=rows,
        scores=_json(result).get("scores", {}) if result.is_file() else {},
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
        skipped=_skipped(path / "quarantine.jsonl"),
        samples=read_samples(path),
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is no JSON ({error}); remove it and the report goes without") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds a {type(content).__name__} where there should be an object; remove it")
    return content


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


def _skipped(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [json.loads(line) for line in lines[:LISTED] if line.endswith("}")]  # the last one may be half there
