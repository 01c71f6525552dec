"""Reads anybody's questions, in the columns that `vilamp pack` knows; any row that cannot be used is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vilamp.benchmark import Item, VideoFile
from vilamp.benchmarks._files import refuse
from vilamp.data.annotations import parse_spans
from vilamp.data.packing.choices import RowError
from vilamp.data.packing.layouts import ALIASES
from vilamp.data.packing.records import Record, read_records
from vilamp.errors import ConfigError, DataError
from vilamp.samples import SkipSample

Fields = Mapping[str, Any]
Options = Callable[[Any, Fields, Any, str], tuple[tuple[str, ...], tuple[int, ...]]]
"""(value of the options' column, row, answer, video) -> the options, and the numbers of the right ones."""


class QuestionFile:
    """A file of questions, a row for each.

    Args:
        path: JSON, JSON lines, CSV or parquet.
        videos: the folder that the rows' videos are relative to.
        columns: field (``question``, ``options``, ``answer``, ``video``, ``kind``, ``query``, ``id``, ``evidence``) ->
            its column, where that has another name than those that are known.
        options: reads the options of a row.
        file_setting, columns_setting: how messages call ``path`` and ``columns``.

    Raises:
        ConfigError: there is no such field.
    """

    def __init__(
        self,
        path: Path,
        videos: Path,
        columns: Mapping[str, str] | None,
        options: Options,
        file_setting: str,
        columns_setting: str,
    ) -> None:
        self.path, self.videos, self.options = path, videos, options
        self.columns = dict(columns or {})
        self.file_setting, self.columns_setting = file_setting, columns_setting
        unknown = sorted(self.columns.keys() - ALIASES.keys())
        if unknown:
            raise ConfigError(f"{columns_setting}: there is no field {unknown[0]!r}; there are {', '.join(ALIASES)}")

    def items(self) -> list[Item]:
        """All questions, in the order of the file.

        Raises:
            DataError: no such file, no row, or rows that cannot be used.
        """
        if not self.path.is_file():
            raise DataError(f"there is no {self.path}; set {self.file_setting} to a file of questions")
        items, problems, rows = [], [], dict[str, str]()
        for number, record in enumerate(read_records(self.path, self.path.name)):
            try:
                item = self._item(record, number)
            except (RowError, SkipSample) as error:
                problems.append(f"{record.source}: {error}")
                continue
            items.append(item)
            if (first := rows.setdefault(item.key, record.source)) != record.source:
                problems.append(f"{record.source}: the id {item.key!r} is that of {first}, too")
        advice = f"mend the file, or name its columns with {self.columns_setting}"
        refuse(self.path, problems, advice, "cannot be used")
        if not items:
            raise DataError(f"{self.path} is empty: there is nothing to ask")
        return items

    def _item(self, record: Record, number: int) -> Item:
        if record.fields is None:
            raise RowError("bad_row", record.problem)
        fields = record.fields
        question, answer, video = (self._get(fields, name) for name in ("question", "answer", "video"))
        for name, value in (("question", question), ("answer", answer), ("video", video)):
            if value is None or isinstance(value, list | dict | bool):
                raise RowError("bad_row", f"no {name}; the columns are {', '.join(map(str, fields))}")
        key, kind, query = (self._get(fields, name) for name in ("id", "kind", "query"))
        options, gold = self.options(self._get(fields, "options"), fields, answer, str(video))
        return Item(
            key=str(number if key is None else key),
            video=VideoFile(self.videos / str(video)),
            question=str(question).strip(),
            options=options,
            gold=gold,
            answer=str(answer).strip(),
            groups={} if kind is None else {"kind": (str(kind),)},
            query="" if query is None else str(query),
            evidence=parse_spans(self._get(fields, "evidence"), "evidence"),
        )

    def _get(self, fields: Fields, name: str) -> Any:
        names = (self.columns[name],) if name in self.columns else ALIASES[name]
        value = next((fields[column] for column in names if column in fields), None)
        return None if value == "" else value
