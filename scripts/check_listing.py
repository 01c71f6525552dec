"""Whether ``vilamp plugins --json`` lists every part of some plugin projects as installed.

vilamp plugins --json > listing.json
python scripts/check_listing.py listing.json plugins/*/
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def faults(listing: dict[str, Any], project: Path) -> list[str]:
    """What the listing should say about one project and does not, in words."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    origin = f"{metadata['name']} {metadata['version']} (installed)"
    wanted = {(file.parent.name, file.stem) for file in (project / "conf").glob("*/*.yaml")}
    listed = {(e["group"], e["name"]) for e in listing["entries"] if e["origin"] == origin and not e["error"]}
    wrong = [f"{group}={name} is not listed with the origin {origin}" for group, name in sorted(wanted - listed)]
    if not wanted:
        wrong.append(f"{project / 'conf'} holds no yaml file")
    for package in metadata["entry-points"]["vilamp.plugins"].values():
        spec = find_spec(package)
        home = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if home is None or not home.is_relative_to(Path(sys.prefix).resolve()):
            wrong.append(f"{package} is imported from {home}, which is not in the environment {sys.prefix}")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Print what is wrong; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("listing", type=Path, help="what vilamp plugins --json printed")
    parser.add_argument("projects", type=Path, nargs="+", help="folders of plugin projects")
    arguments = parser.parse_args(argv)
    listing = json.loads(arguments.listing.read_text())
    found = [f"{plugin['origin']}: {plugin['error']}" for plugin in listing["broken"]]
    found += [fault for project in arguments.projects for fault in faults(listing, project)]
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
