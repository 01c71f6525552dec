"""``vilamp memory``: what a run would take of a GPU's memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from vilamp.cli import app

JSON = "--json"


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Compose ``conf/memory.yaml`` with the overrides in ``argv``, count, print, and return the exit code.

    With ``--json`` the last line of the output is one JSON object.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)

    def run(cfg: DictConfig) -> None:
        from rich.console import Console

        from vilamp.memory.report import predict

        prediction = predict(cfg)
        Console().print(prediction.table())
        if JSON in arguments:
            print(json.dumps(prediction.as_dict()))

    return app.run(run, "memory", [argument for argument in arguments if argument != JSON], prog=prog)
