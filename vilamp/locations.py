"""Where the files that belong to the package lie, in a checkout and in an installed wheel.

The standard library only: whatever the command line needs before it needs torch starts here.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
"""The folder of the package ``vilamp``."""


def checkout() -> Path | None:
    """The root of the source tree that the package is run from, None where it was installed as a wheel."""
    root = PACKAGE.parent
    # A site-packages folder can hold somebody's top-level "conf", but it never holds a pyproject.toml as well.
    return root if (root / "pyproject.toml").is_file() and (root / "conf").is_dir() else None


def conf_dir() -> Path:
    """The absolute folder of the yaml files: ``conf/`` of the checkout, or ``vilamp/conf`` of the wheel."""
    root = checkout()
    return (root if root is not None else PACKAGE) / "conf"


def asset(relative: str) -> Path:
    """The absolute path of a file or folder in ``vilamp/assets``, whether it exists or not."""
    return PACKAGE / "assets" / relative
