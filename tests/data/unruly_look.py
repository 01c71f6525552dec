"""Runs a command of ``vilamp`` over videos whose last word tells how to misbehave while their containers are read.

    python tests/data/unruly_look.py SECONDS COMMAND ARGUMENTS...

The processes that it starts run these lines, too, and so take the same decoder and limits.
"""

from __future__ import annotations

import sys

from unruly import UnrulyProbe

from vilamp import cli
from vilamp.data.isolation import Budget
from vilamp.data.packing import looking

looking.PacketReader = UnrulyProbe  # type: ignore[misc, assignment]
looking.USUAL = Budget(float(sys.argv[1]), 1.0, "", "")  # type: ignore[attr-defined]

if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[2:]))
