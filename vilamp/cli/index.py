"""``vilamp index``: the index beside shards that others wrote, so that reading them notices every loss."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vilamp.cli.app import FAILED, report
from vilamp.errors import VilampError

if TYPE_CHECKING:
    from vilamp.samples import Skip


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Write an index beside each shard; the exit code is 1 where a shard cannot be indexed.

    What is refused is listed.  It is in the index too, so that training counts it.
    """
    from vilamp.data.packing.parallel import cores

    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("shards", nargs="+", metavar="SHARD", help="paths, or patterns such as 'my/train-*.tar'")
    parser.add_argument("--overwrite", action="store_true", help="replace an index that is there")
    parser.add_argument("--workers", type=int, default=cores(), help="processes (one for each core)")
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON object on the last line")
    arguments = parser.parse_args(argv)
    try:
        return _index(arguments)
    except VilampError as error:
        return report(error)


def _index(arguments: argparse.Namespace) -> int:
    from functools import partial

    from vilamp.data.packing.indexing import write_foreign_index
    from vilamp.data.packing.looking import stop_looking
    from vilamp.data.packing.parallel import in_any_order
    from vilamp.data.patterns import expand_patterns

    shards = expand_patterns(arguments.shards, "SHARD")
    work = partial(write_foreign_index, overwrite=arguments.overwrite)
    try:
        results = dict(in_any_order(work, shards, arguments.workers))
    finally:
        stop_looking()
    rows = []
    for number, shard in enumerate(shards):
        result = results[number]
        print(f"{shard}: {result.error or f'{result.samples} sample(s), {len(result.refused)} refused'}")
        for skip in result.refused:
            print(f"  {skip.key or '-'}: {skip.reason}: {skip.detail}")
        refused = [_fields(skip) for skip in result.refused]
        rows.append({"shard": shard, "samples": result.samples, "refused": refused, "error": result.error})
    if arguments.json:
        print(json.dumps(rows))
    return FAILED if any(row["error"] for row in rows) else 0


def _fields(skip: Skip) -> dict[str, str]:
    return {"key": skip.key, "reason": skip.reason, "detail": skip.detail}
