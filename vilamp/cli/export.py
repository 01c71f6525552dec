"""``vilamp export``: what a run trained, as one folder that stands by itself."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vilamp import config
from vilamp.cli.app import report
from vilamp.disk import partial_of, writing_to
from vilamp.errors import VilampError


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Export; the exit code is 1 where something is wrong with the run, the folder or the hub."""
    arguments = _parser(prog).parse_args(argv)
    try:
        config.register()
        _export(arguments)
    except VilampError as error:
        return report(error)
    return 0


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, epilog="docs/lora.md tells more.")
    add = parser.add_argument
    add("run", metavar="RUN", help="a run's folder (its best checkpoint), one of its checkpoints, or its adapter/")
    add("folder", type=Path, metavar="FOLDER", help="where the model goes")
    add("--dtype", choices=("float32", "bfloat16"), help="of the weights; without it, model.dtype of the run")
    add("--overwrite", action="store_true", help="replace an earlier export")
    add("--push-to-hub", metavar="REPO", help="also upload it to this repository of the hub (owner/name)")
    add("--public", action="store_true", help="a repository that is made for it can be read by everybody")
    return parser


def _export(arguments: argparse.Namespace) -> None:
    from vilamp.training.export import export, push

    folder: Path = arguments.folder
    with writing_to({folder: "FOLDER", partial_of(folder): "FOLDER"}):
        export(arguments.run, folder, arguments.dtype, overwrite=arguments.overwrite)
    print(f"{folder}: {sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB")
    if arguments.push_to_hub:
        print(push(folder, arguments.push_to_hub, public=arguments.public))
