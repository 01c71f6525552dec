"""``vilamp plugins``: what can be selected, where it comes from, and which plugins are broken."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vilamp import plugins
from vilamp.cli.app import report
from vilamp.errors import PluginError

_PIPED_WIDTH = 160
"""Columns of the table where no terminal says how wide it is."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Print the table, or with ``--json`` one JSON object; a broken plugin is named on stderr and is no failure."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args(argv)
    try:
        entries = plugins.listing()
    except PluginError as error:
        return report(error)
    broken = [plugin for plugin in plugins.discover() if plugin.error]
    if arguments.json:
        rows = [
            {"group": e.group, "name": e.name, "origin": e.origin, "summary": e.summary, "error": e.error}
            for e in entries
        ]
        print(json.dumps({"entries": rows, "broken": [{"origin": p.origin, "error": p.error} for p in broken]}))
        return 0
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(_table(entries))
    for plugin in broken:
        print(f"warning: {plugin.origin} cannot be used: {plugin.error}", file=sys.stderr)
    return 0


def _table(entries: Sequence[plugins.Entry]) -> Table:
    table = Table("group", "name", "origin", "what it does", box=box.SIMPLE_HEAD)
    for index, entry in enumerate(entries):
        what = Text(f"cannot be used: {entry.error}", "red") if entry.error else Text(entry.summary)
        last = index + 1 == len(entries) or entries[index + 1].group != entry.group
        table.add_row(Text(entry.group), Text(entry.name), Text(entry.origin), what, end_section=last)
    return table
