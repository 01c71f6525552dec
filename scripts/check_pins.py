"""Whether this environment holds the pinned versions and nothing beside them.

python scripts/check_pins.py constraints.txt
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

OURS = {"vilamp-lightning", "pip"}
"""What is in every environment and is not pinned: the project itself, and the installer."""


def normalised(name: str) -> str:
    """A project's name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def differences(pins: str, installed: Iterable[tuple[str, str]]) -> list[str]:
    """What is installed in another version than the pinned one, or without a pin.

    Args:
        pins: the text of a constraints file.
        installed: names and versions; a local build tag (``2.13.0+cpu``) does not count.
    """
    wanted = {normalised(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", pins, re.MULTILINE)}
    found = {normalised(name): version.partition("+")[0] for name, version in installed}
    return [
        f"{name}=={version} is installed, pinned: {wanted.get(name, 'not at all')}"
        for name, version in sorted(found.items())
        if name not in OURS and wanted.get(name) != version
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the differences; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("constraints", type=Path)
    arguments = parser.parse_args(argv)
    installed = [(distribution.name, distribution.version) for distribution in metadata.distributions()]
    found = differences(arguments.constraints.read_text(), installed)
    for difference in found:
        print(f"error: {difference}", file=sys.stderr)
    print(f"{len(installed)} packages, {len(found)} differences")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
