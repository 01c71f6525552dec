"""The code of one marked block of a Markdown file, for whoever must run exactly what the reader is told to.

    python scripts/readme_block.py command:run            # of README.md beside this folder
    python scripts/readme_block.py command:run OTHER.md

A block is marked by a comment on the line before its fence: ``<!-- command:run -->``.  The standard library only, since
a fresh machine runs this before anything is installed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def marked_blocks(text: str) -> dict[str, str]:
    """Marker -> code, of every fenced block with a marker before it.

    Raises:
        ValueError: two blocks have one marker.
    """
    blocks: dict[str, str] = {}
    for name, code in re.findall(r"^<!-- (\S+:\S+) -->\n```\w*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        if name in blocks:
            raise ValueError(f"two blocks are marked {name}")
        blocks[name] = code
    return blocks


def main(argv: Sequence[str] | None = None) -> int:
    """Print one block; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("marker", help="for example command:run")
    parser.add_argument("file", type=Path, nargs="?", default=README)
    arguments = parser.parse_args(argv)
    try:
        blocks = marked_blocks(arguments.file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        print(f"error: {arguments.file}: {error}", file=sys.stderr)
        return 1
    if arguments.marker not in blocks:
        there = ", ".join(sorted(blocks)) or "none"
        print(f"error: {arguments.file} has no block marked {arguments.marker}; there are: {there}", file=sys.stderr)
        return 1
    print(blocks[arguments.marker], end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
