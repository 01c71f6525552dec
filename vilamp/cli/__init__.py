"""The command ``vilamp``: one subcommand per module of this package, imported when it is called."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import select
import sys
from collections.abc import Sequence
from contextlib import suppress

from vilamp import __version__, disk

COMMANDS = {
    "train": ("vilamp.cli.train", "train a model: vilamp train selector=differential merger=differential"),
    "evaluate": ("vilamp.cli.evaluate", "evaluate a checkpoint: vilamp evaluate checkpoint=... benchmark=..."),
    "compare": ("vilamp.cli.compare", "put runs and evaluations side by side: vilamp compare FOLDER FOLDER"),
    "report": ("vilamp.cli.report", "make the report of a run or an evaluation again: vilamp report outputs/DAY/TIME"),
    "export": ("vilamp.cli.export", "make a model that stands by itself: vilamp export outputs/DAY/TIME my-model"),
    "ask": ("vilamp.cli.ask", 'ask a video: vilamp ask VIDEO "what colour is the circle?"'),
    "demo": ("vilamp.cli.demo", "the same in a browser: vilamp demo"),
    "memory": ("vilamp.cli.memory", "predict the memory of a run: vilamp memory model=vilamp_7b mode=infer"),
    "pack": (
        "vilamp.cli.pack",
        "make shards of your videos: vilamp pack questions.json --videos DIR --out DIR",
    ),
    "videoniah": (
        "vilamp.cli.videoniah",
        "make a needle benchmark: vilamp videoniah build HAYSTACKS --needles needles.jsonl --out spec.jsonl",
    ),
    "index": ("vilamp.cli.index", "make the index for shards that others wrote: vilamp index 'my/*.tar'"),
    "inspect": ("vilamp.cli.inspect", "show what is in a shard: vilamp inspect my/train-000000.tar"),
    "plugins": ("vilamp.cli.plugins", "list the selectors, mergers and other parts that can be selected"),
}
"""Name -> (module with ``main(argv, prog) -> exit code``, one line of help)."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""

NOT_READ = 141
"""The exit code where nobody reads the output any more, as shells have it: 128 and the number of SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that ``argv`` (None: the command line) names, and return its exit code.

    Where whoever reads the output has seen enough, as ``head`` has, it ends without a word; on Ctrl-C, or where the
    output goes to a disk that is full, with one.
    """
    try:
        try:
            code = _run(list(sys.argv[1:] if argv is None else argv))
        except SystemExit:  # argparse ends so
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # fails here if nobody reads it, and not where Python ends
        return code
    except KeyboardInterrupt:  # train, evaluate and ask have more to say
        if os.environ.get("VILAMP_TRACEBACK") == "1":
            raise
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not _nobody_reads():
            raise  # another pipe
        _leave_output()
        return NOT_READ
    except OSError as error:
        if error.errno not in disk.FULL:
            raise
        _leave_output()
        where = error.filename or "the output"  # files have told of themselves, see vilamp.disk
        print(f"error: {error.strerror} while writing {where}", file=sys.stderr)
        return 1


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        _parser().parse_args(arguments[:1])  # --help and --version end here
        _parser().error(_unknown(arguments[0]) if arguments else "name a command")
    module = importlib.import_module(COMMANDS[arguments[0]][0])
    return int(module.main(arguments[1:], prog=f"vilamp {arguments[0]}"))


def _nobody_reads() -> bool:
    """Whether the output goes into a pipe at whose other end there is nobody any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # Windows cannot tell; nor is every stdout a file
        return False


def _leave_output() -> None:
    """Write what can be written; of what cannot, Python would tell once more when it ends."""
    with suppress(OSError):
        sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(COMMANDS)}"
    return f"there is no command '{name}'; {hint}"


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="vilamp",
        usage="vilamp COMMAND [settings]",
        description="Train and adapt video-language models on hours of video.",
        epilog=f"commands:\n{listed}\n\n`vilamp COMMAND --help` tells more about one of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vilamp {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser
