"""The rows of annotation files: JSON, JSON lines, CSV and parquet, before anything is made of them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilamp.data.bounded_json import MAX_DEPTH, TOO_DEEP, repeated, unique
from vilamp.errors import DataError

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Record:
    """One row.

    Attributes:
        source: ``<file>:<number>``, counted from 1.
        fields: column -> value; None where the row cannot be read.  A number that is none (NaN, infinity) is a missing
            value, also within lists and objects: so tables write it.
        problem: why it cannot.
    """

    source: str
    fields: dict[str, Any] | None
    problem: str = ""


def read_records(path: Path, name: str) -> Iterator[Record]:
    """The rows of a file, in order.

    Args:
        path: the file; its suffix tells its kind.
        name: how messages and reports call it.

    Raises:
        DataError: unknown suffix, not readable as a whole, or parquet without pyarrow.
    """
    readers = {".json": _json, ".jsonl": _json_lines, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: the kind of file is told by its suffix, which must be one of {', '.join(SUFFIXES)}")
    try:
        for number, value in enumerate(reader(path), 1):
            yield _record(f"{name}:{number}", value)
    except DataError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        mend = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            mend = "; if each line is a row of its own, name it .jsonl"
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {str(error)[:300]}{mend}") from error


def _record(source: str, value: Any) -> Record:
    try:
        fields = _without_nan(value)
        if not isinstance(fields, dict):
            raise ValueError(f"no object but {repr(fields)[:80]}")
    except ValueError as error:
        return Record(source, None, str(error)[:200])
    return Record(source, fields)


def _without_nan(value: Any, levels: int = MAX_DEPTH) -> Any:
    if isinstance(value, ValueError):  # in place of what cannot be read
        raise value
    if isinstance(value, list | dict) and not levels:
        raise ValueError(TOO_DEEP)
    if isinstance(value, list):
        return [_without_nan(inner, levels - 1) for inner in value]
    if isinstance(value, dict):
        return {name: _without_nan(inner, levels - 1) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | ValueError:
    """An object of JSON; an error in its place if a name comes twice."""
    try:
        return unique(pairs)
    except ValueError as error:
        return error


def _json(path: Path) -> Iterator[Any]:
    root = json.loads(path.read_bytes(), object_pairs_hook=_object)
    if not isinstance(root, list):
        raise DataError(f"{path}: a list of rows should be its outermost value, got {type(root).__name__}")
    yield from root


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                try:
                    yield json.loads(line, object_pairs_hook=_object)
                except ValueError as error:
                    yield error
                except RecursionError:
                    yield ValueError(TOO_DEEP)


def _csv(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Strict, because a quotation mark that is not closed would take all rows up to the next one into its cell.
        rows = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            _check_columns(rows.fieldnames or [])
            for fields in rows:
                # DictReader puts what is too much under None, and None for what is missing.
                whole = None not in fields and None not in fields.values()
                yield fields if whole else ValueError("the row has not as many cells as the first line")
        except csv.Error as error:
            place = f"in line {rows.reader.line_num} or before, where a quotation mark opens a cell"
            raise ValueError(f"{error}, {place}; double a quotation mark that is part of a cell") from error


def _parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{path}: reading parquet needs pyarrow, which is not installed: pip install 'vilamp-lightning[parquet]', "
            "or convert the file to JSON lines or CSV"
        ) from error
    file = parquet.ParquetFile(path)
    _check_columns(file.schema_arrow.names)
    for batch in file.iter_batches():
        yield from batch.to_pylist()


def _check_columns(names: Sequence[str]) -> None:
    """Raise ValueError where nobody knows which of two columns is meant."""
    if twice := repeated(names):  # several may have no name, which nobody reads
        raise ValueError(f"there is more than one column {twice[:80]!r}; rename or remove all but one")
