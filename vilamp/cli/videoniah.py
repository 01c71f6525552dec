"""``vilamp videoniah``: make the specification of a needle benchmark, of any videos or of drawn ones.

`build` takes haystack videos and needle clips with questions, and says which clip goes where in which haystack.  No
video is written: `python evaluate.py benchmark=videoniah benchmark.spec=...` splices while it reads.  `example` draws
haystacks and needles for the tiny model first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vilamp.cli.app import report
from vilamp.cli.pack import pair
from vilamp.errors import OutputError, VilampError

if TYPE_CHECKING:
    from vilamp.benchmark import Item
    from vilamp.videoniah.build import Wanted

EXAMPLE_LENGTHS = (1000, 2000, 4000, 6000, 8000, 10_000)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Build, or make the example; returns the exit code."""
    arguments = _parser(prog).parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except VilampError as error:
        return report(error)


def _parser(prog: str | None) -> argparse.ArgumentParser:
    from vilamp.videoniah.build import LENGTHS, WHEN_SHORT

    parser = argparse.ArgumentParser(prog=prog, description=__doc__, epilog="docs/videoniah.md tells more.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="a specification of your haystacks and needles")
    build.set_defaults(run=_build)
    add = build.add_argument
    add("haystacks", nargs="+", type=Path, metavar="HAYSTACK", help="a video, or a folder of videos")
    add("--needles", required=True, type=Path, metavar="FILE",
        help="rows with video (the clip), question, answer; also options, kind, query, evidence, id")  # fmt: skip
    add("--videos", type=Path, metavar="DIR", help="where the clips' paths begin (where FILE is)")
    add("--column", action="append", default=[], type=pair, metavar="FIELD=NAME", dest="columns",
        help="the column of a field, for example question=Q")  # fmt: skip
    add("--out", required=True, type=Path, metavar="SPEC", help="the file to write, for example spec.jsonl")
    add("--when-short", choices=WHEN_SHORT, default=WHEN_SHORT[0],
        help="what becomes of a haystack with too few frames: joined to the next, or begun again (error)")  # fmt: skip
    add("--fps", type=float, default=1.0, help="frames a second that are read of haystacks and needles (1)")
    _add_cases(build, LENGTHS)
    example = commands.add_parser("example", help="haystacks, needles and a specification for the tiny model")
    example.set_defaults(run=_example)
    add = example.add_argument
    add("--out", type=Path, default=Path("data/videoniah"), metavar="DIR", help="(data/videoniah)")
    add("--haystacks", type=int, default=2, help="how many (2)")
    add("--needles", type=int, default=24, help="how many (24)")
    _add_cases(example, EXAMPLE_LENGTHS)
    return parser


def _add_cases(parser: argparse.ArgumentParser, lengths: Sequence[int]) -> None:
    from vilamp.videoniah.build import DEPTHS

    add = parser.add_argument
    add("--lengths", type=int, nargs="+", default=lengths, metavar="N",
        help=f"frames of a case ({' '.join(map(str, lengths))})")  # fmt: skip
    add("--depths", type=float, nargs="+", default=DEPTHS, metavar="SHARE",
        help=f"of the haystack before the needle ({' '.join(map(str, DEPTHS))})")  # fmt: skip
    add("--questions", type=int, metavar="N", help="so many are drawn, each for every length and depth (all)")
    add("--seed", type=int, default=0, help="what is drawn by (0)")


def _build(arguments: argparse.Namespace) -> int:
    from vilamp.videoniah.build import Wanted, read_needles

    wanted = Wanted(
        arguments.lengths, arguments.depths, arguments.fps, arguments.questions, arguments.when_short, arguments.seed
    )
    videos = arguments.videos or arguments.needles.parent
    needles = read_needles(arguments.needles, videos, dict(arguments.columns))
    return _write(arguments.haystacks, needles, arguments.out, wanted)


def _example(arguments: argparse.Namespace) -> int:
    from vilamp.videoniah.build import Wanted, read_needles
    from vilamp.videoniah.example import make_example

    wanted = Wanted(arguments.lengths, arguments.depths, questions=arguments.questions, seed=arguments.seed)
    counts = arguments.haystacks, max(arguments.lengths), arguments.needles
    haystacks, file = make_example(arguments.out, *counts, arguments.seed, lambda made: print(made, flush=True))
    return _write(haystacks, read_needles(file, arguments.out, {}), arguments.out / "spec.jsonl", wanted)


def _write(haystacks: Sequence[Path], needles: Sequence[Item], out: Path, wanted: Wanted) -> int:
    from vilamp.disk import partial_of, writing_to
    from vilamp.videoniah.build import build
    from vilamp.videoniah.spec import write_spec

    if out.is_dir():
        raise OutputError(f"--out {out} is a folder; name a file in it, for example {out / 'spec.jsonl'}")
    with writing_to({out.parent: "--out", partial_of(out): "--out"}):
        out.parent.mkdir(parents=True, exist_ok=True)
        spec = build(haystacks, needles, out.parent, wanted, print)
        write_spec(spec, out)
    clips = len({case.needle for case in spec.cases})
    print(
        f"{out}: {len(spec.cases)} cases, {len(spec.haystacks)} haystack(s), {clips} needle(s), lengths "
        f"{spec.lengths}, depths {spec.depths}"
    )
    return 0
