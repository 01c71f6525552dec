"""``vilamp inspect``: what is in a shard, as a table and as thumbnails."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilamp.cli.app import report
from vilamp.credentials import without_credentials
from vilamp.errors import DataError, VilampError

if TYPE_CHECKING:
    from vilamp.data.decode import VideoReader
    from vilamp.data.shard_sample import ShardSample

_PIPED_WIDTH = 160
"""Columns where no terminal says how wide it is."""
_TERMINAL_SIZE, _PICTURE_SIZE = 24, 160
"""Pixels of a thumbnail."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Show a shard; samples that cannot be used are shown with the reason and are no failure."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("shard", metavar="SHARD", help="path of a tar, or the URL of one with an index")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="most samples that are shown (20)")
    parser.add_argument("--thumbnails", action="store_true", help="show frames in the terminal, which needs colours")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the frames as one picture")
    parser.add_argument("--frames", type=int, default=4, metavar="N", help="frames of a video (4)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args(argv)
    if min(arguments.limit, arguments.frames) < 1:
        parser.error("--limit and --frames must be at least 1")
    try:
        _inspect(arguments)
    except VilampError as error:
        return report(error)
    return 0


def _inspect(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from vilamp.data.patterns import expand_patterns
    from vilamp.data.shards import index_shard
    from vilamp.data.sources import SourceError

    (shard, *others) = expand_patterns(arguments.shard, "SHARD", remote=True, allow_pipe=True)
    if others:
        raise DataError(f"SHARD: {arguments.shard} names {len(others) + 1} shards, one can be shown")
    try:
        index = index_shard(shard)  # makes no copy, and runs no command
    except SourceError as error:
        raise DataError(f"SHARD: {error}") from error
    shown, shard = index.samples[: arguments.limit], without_credentials(shard)
    rows = [_row(sample) for sample in shown]
    skips = [{"key": skip.key, "reason": skip.reason, "detail": skip.detail} for skip in index.skips]
    if arguments.json:
        totals = {"shard": shard, "indexed": index.verified, "total": len(index.samples)}
        print(json.dumps({**totals, "samples": rows, "no_samples": skips}))
    else:
        console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
        _print(console, shard, rows, len(index.samples), index.verified)
        for skip in skips:
            console.print(f"{skip['key'] or '-'}: {skip['reason']}: {skip['detail']}", markup=False, style="red")
        if arguments.thumbnails:
            _show(console, shown, arguments.frames)
    if arguments.png is not None:
        _write(arguments.png, shown, arguments.frames)


def _row(sample: ShardSample) -> dict[str, Any]:
    from vilamp.data.annotations import MAX_BYTES, parse_annotation
    from vilamp.data.packing.looking import look_at_video
    from vilamp.data.spool import IN_MEMORY_GIB, Spool
    from vilamp.samples import SkipSample

    members = {name: place.size for name, place in sample.members.items()}
    row: dict[str, Any] = {"key": sample.key, "members": members, "seconds": sample.seconds, "problem": None}
    try:
        annotation = parse_annotation(sample.read("json", MAX_BYTES))
        row |= {"questions": len(annotation.questions), "first_question": annotation.questions[0].question}
        extension = sample.video(annotation)
        if extension is not None and sample.seconds is None:
            row["seconds"], _ = look_at_video(sample.source(extension, Spool(IN_MEMORY_GIB)))
    except SkipSample as skip:
        row = {"questions": 0, "first_question": "", **row, "problem": str(skip)}
    return row


def _printable(text: str) -> str:
    """Without line feeds, and without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _print(console: Any, shard: str, rows: Sequence[dict[str, Any]], total: int, indexed: bool) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("key", "members", box=box.SIMPLE_HEAD, title=f"{shard}, {'with' if indexed else 'without'} an index")
    for header in ("seconds", "questions"):
        table.add_column(header, justify="right")
    table.add_column("first question")
    for row in rows:
        members = ", ".join(f"{name} {size:,}" for name, size in row["members"].items())
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        told = Text(row["problem"], "red") if row["problem"] else Text(_printable(row["first_question"]))
        table.add_row(Text(row["key"]), Text(members), seconds, str(row["questions"]), told)
    console.print(table)
    console.print(f"{len(rows)} of {total} sample(s)")


def _reader(count: int, size: int) -> VideoReader:
    from vilamp.data.decode import VideoReader
    from vilamp.data.frames import FrameSettings
    from vilamp.data.isolation import USUAL
    from vilamp.data.spool import IN_MEMORY_GIB, Spool
    from vilamp.decoders.auto import AutoDecoder

    settings = FrameSettings(fps=1.0, max_frames=count, size=size)
    return VideoReader(AutoDecoder(), settings, USUAL, Spool(IN_MEMORY_GIB))


def _show(console: Any, samples: Sequence[ShardSample], count: int) -> None:
    from vilamp.data.packing.thumbnails import frames_of, half_blocks
    from vilamp.samples import SkipSample

    reader = _reader(count, _TERMINAL_SIZE)
    for sample in samples:
        try:
            frames = frames_of(sample, reader)
        except SkipSample as skip:
            console.print(f"{sample.key}: {_printable(str(skip))}", markup=False, highlight=False, style="red")
            continue
        if frames is not None:
            console.print(sample.key, markup=False, highlight=False)
            console.print(half_blocks(frames))


def _write(path: Path, samples: Sequence[ShardSample], count: int) -> None:
    from vilamp.data.packing.thumbnails import contact_sheet, frames_of
    from vilamp.samples import SkipSample

    rows = []
    reader = _reader(count, _PICTURE_SIZE)
    for sample in samples:
        try:
            frames = frames_of(sample, reader)
        except SkipSample as skip:
            print(f"{sample.key} is not in the picture: {skip}", file=sys.stderr)
            continue
        if frames is not None:
            rows.append((sample.key, frames))
    try:
        contact_sheet(rows).save(path, "PNG")
    except (OSError, ValueError) as error:
        raise DataError(f"--png {path}: {error}") from error
