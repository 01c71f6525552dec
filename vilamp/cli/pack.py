"""``vilamp pack``: annotations and videos into shards; with ``--check``, whether a set of shards is as it should be."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vilamp.cli.app import FAILED, report
from vilamp.errors import DataError, VilampError

if TYPE_CHECKING:
    from vilamp.data.packing.pack import Packed, Settings
    from vilamp.samples import Skip

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Pack or check; the exit code is 1 where too much was left out, or where the check finds anything."""
    parser = _parser(prog)
    arguments = parser.parse_args(argv)
    if arguments.check:
        run = _check
    elif arguments.no_decode or arguments.decode_timeout != parser.get_default("decode_timeout"):
        parser.error("--no-decode and --decode-timeout go with --check; packing decodes nothing")
    elif arguments.out is None or len(arguments.paths) != 1:
        parser.error("packing needs one ANNOTATIONS and --out DIR; verifying needs --check")
    else:
        run = _pack
    try:
        return run(arguments)
    except VilampError as error:
        return report(error)


def _parser(prog: str | None) -> argparse.ArgumentParser:
    from vilamp.data.packing.choices import ANSWERS
    from vilamp.data.packing.layouts import ALIASES, FORMATS
    from vilamp.data.packing.parallel import cores

    parser = argparse.ArgumentParser(prog=prog, description=__doc__, epilog="data/README.md tells about the formats.")
    add = parser.add_argument
    add("paths", nargs="+", metavar="ANNOTATIONS",
        help="a file, or a folder laid out as LLaVA-Video-178K; with --check shards, patterns, or folders")  # fmt: skip
    add("--check", action="store_true", help="verify shards: sizes, checksums, annotations, and every video")
    add("--no-decode", action="store_true", help="with --check: read the packets of videos only, which is much faster "
        "and does not find damage within them")  # fmt: skip
    add("--decode-timeout", type=_seconds, default=3600.0, metavar="SECONDS",
        help="with --check: how long decoding all of one video may take (3600)")  # fmt: skip
    add("--videos", type=Path, metavar="DIR", help="where relative paths of videos begin (where the annotations are)")
    add("--out", type=Path, metavar="DIR", help="where the shards go")
    add("--name", default="train", help="shards are NAME-000000.tar and so on (train)")
    add("--format", choices=FORMATS, help="of the annotations; without it, it is detected")
    add("--column", action="append", default=[], type=pair, metavar="FIELD=NAME", dest="columns",
        help=f"the column of a field, for example question=Q; fields: {', '.join(ALIASES)}")  # fmt: skip
    add("--answers", choices=ANSWERS, help="what the answers of multiple-choice rows are; an index counts from 0")
    add(
        "--shard-size",
        type=_bytes,
        default=1 << 30,
        metavar="SIZE",
        help="most bytes of a shard, for example 500M (1G)",
    )
    add("--max-skip-rate", type=float, default=0.01, metavar="RATE", help="share that may be unusable (0.01)")
    add("--workers", type=int, default=cores(), help="processes (one for each core)")
    add("--overwrite", action="store_true", help="replace an earlier set of the same name")
    add("--json", action="store_true", help="print what was done as one JSON object on the last line")
    return parser


def pair(text: str) -> tuple[str, str]:
    """The field and the column of a ``FIELD=NAME`` on the command line."""
    field, equals, name = text.partition("=")
    if not (field and equals and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=NAME")
    return field, name


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", text.strip().upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 500M or 2G")
    return int(float(match[1]) * _UNITS[match[2]])


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _pack(arguments: argparse.Namespace) -> int:
    from vilamp.data.packing.layouts import read_annotations
    from vilamp.data.packing.pack import Settings, check_skip_rate, pack

    path: Path = Path(arguments.paths[0])
    if not path.exists():
        raise DataError(f"there are no annotations at {path}")
    settings = Settings(
        videos=arguments.videos or (path if path.is_dir() else path.parent),
        out=arguments.out,
        name=arguments.name,
        shard_size=arguments.shard_size,
        max_skip_rate=arguments.max_skip_rate,
        workers=arguments.workers,
        overwrite=arguments.overwrite,
        progress=_is_watched(),
    )
    annotations = read_annotations(path, arguments.format, dict(arguments.columns), arguments.answers)
    how = "as asked" if arguments.format else "detected"
    print(f"format: {annotations.format} ({how}); {len(annotations.rows)} usable row(s)", flush=True)
    packed = pack(annotations, settings)
    _tell(packed, settings)
    if arguments.json:
        print(json.dumps({**packed.manifest, "resumed": packed.resumed}))
    check_skip_rate(packed.left_out, packed.total, settings)
    return 0


def _tell(packed: Packed, settings: Settings) -> None:
    from vilamp.data.index_file import MANIFEST, REPORT

    totals = packed.manifest["totals"]
    again = f" ({packed.resumed} of them from an earlier run)" if packed.resumed else ""
    print(
        f"{len(packed.manifest['shards'])} shard(s){again}: {totals['samples']} samples, {totals['questions']} "
        f"questions, {totals['seconds'] / 3600:.2f} hours of video, {totals['bytes'] / 1e9:.3f} GB; "
        f"{settings.beside(MANIFEST)}"
    )
    if packed.left_out:
        reasons: Counter[str] = Counter()
        for entry in packed.left_out:
            reasons[entry.reason] += entry.questions
        print(f"left out: {reasons.total()} question(s): {_counted(reasons)}; {settings.beside(REPORT)}")


def _check(arguments: argparse.Namespace) -> int:
    from vilamp.data.packing.check import Decoding, check_manifest, check_shards, shards_and_manifests
    from vilamp.decoders.pyav import PyAVDecoder  # it notices most of the damage

    shards, manifests = shards_and_manifests(arguments.paths)
    problems = [problem for manifest in manifests for problem in check_manifest(manifest)]
    decoding = None if arguments.no_decode else Decoding(PyAVDecoder, arguments.decode_timeout)
    verdict = check_shards(shards, decoding, arguments.workers, _is_watched())
    problems += verdict.problems
    _tell_problems(problems)
    totals = {
        "shards": len(shards),
        "samples": verdict.samples,
        "questions": verdict.questions,
        "seconds": round(verdict.seconds, 3),
    }
    listed = _counted(Counter(problem.reason for problem in problems))
    print(
        f"{totals['shards']} shard(s): {totals['samples']} usable samples, {totals['questions']} questions, "
        f"{totals['seconds'] / 3600:.2f} hours of video, {'not decoded' if decoding is None else 'all decoded'}; "
        f"{len(problems)} problem(s){listed and f': {listed}'}"
    )
    if arguments.json:
        print(json.dumps({**totals, "problems": [vars_of(problem) for problem in problems]}))
    return FAILED if problems else 0


def _is_watched() -> bool:
    """Whether somebody sees a progress bar."""
    return sys.stderr.isatty() or sys.stdout.isatty()


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())


def vars_of(problem: Skip) -> dict[str, str]:
    """The fields of a problem, for JSON."""
    return {"shard": problem.shard, "key": problem.key, "reason": problem.reason, "detail": problem.detail}


def _tell_problems(problems: Sequence[Skip]) -> None:
    """One line for each; every one, since nobody can mend what is not named."""
    for problem in problems:
        print(f"{problem.shard}: {problem.key or '-'}: {problem.reason}: {problem.detail}")
