"""Evaluate from a checkout without installing it: ``python evaluate.py ...`` is ``vilamp evaluate ...``."""

import sys

if __name__ == "__main__":
    # This folder comes last: its evaluate.py would hide the package `evaluate` from those who import that.
    sys.path.append(sys.path.pop(0))
    from vilamp.cli.evaluate import main

    sys.exit(main())
