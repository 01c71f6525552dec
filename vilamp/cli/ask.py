"""``vilamp ask``: a video, a question, the answer, and what the model looked at."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from vilamp import config
from vilamp.cli import INTERRUPTED
from vilamp.cli.app import report
from vilamp.errors import OutputError, VilampError

if TYPE_CHECKING:
    from rich.console import Console

    from vilamp.session import Answer, Progress, Session

CONFIG = "ask"
SETTING = re.compile(r"[~+]*[\w.@/]+=")
"""How an argument begins that is no question."""
_THUMBNAIL = 24
"""Pixels of a keyframe in the terminal, at most."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Answer one question, or, without one, question after question until the end of the input or Ctrl-C."""
    arguments = _parser(prog).parse_intermixed_args(argv)
    settings = [text for text in arguments.question if SETTING.match(text)]
    questions = [text for text in arguments.question if not SETTING.match(text)]
    if len(questions) > 1:
        _parser(prog).error(f"one question at a time, in quotes; got {', '.join(map(repr, questions))}")
    try:
        if arguments.timeline is not None:
            _check_writable(arguments.timeline)
        session = _open(arguments.video, settings, questions)
        teller = _Teller(session, arguments)
        if questions:
            teller.tell(questions[0])
        else:
            return _talk(teller, arguments.json)
    except config.USER_ERRORS as error:
        return report(error, CONFIG, settings)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f'{prog} VIDEO ["QUESTION"] [checkpoint=PATH] [setting=value ...] [--timeline FILE] [...]',
        description="Ask a video a question; without one, as many as you like: the video is watched once.",
        epilog="Settings are those of conf/ask.yaml; docs/ask.md tells more.",
    )
    parser.add_argument("video", metavar="VIDEO", help="path of a video file")
    parser.add_argument("question", metavar="QUESTION", nargs="*", help="in quotes, and settings as key=value")
    parser.add_argument("--timeline", type=Path, metavar="FILE", help="write relevance and keyframes as a PNG")
    parser.add_argument("--thumbnails", action="store_true", help="show keyframes in the terminal, which needs colours")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each answer, and nothing else")
    return parser


@contextmanager
def _writing_timeline(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"--timeline {file} cannot be written: {error.strerror or error}") from error


def _check_writable(file: Path) -> None:
    """Raise OutputError where a picture cannot be written; what is there stays, and nothing is left."""
    with _writing_timeline(file), file.open("ab") if file.exists() else TemporaryFile(dir=file.parent):
        pass


def _open(video: str, settings: Sequence[str], questions: Sequence[str]) -> Session:
    """Load the model and watch the video, with a bar on the terminal; before that, refuse questions that are empty."""
    cfg = config.compose(CONFIG, settings)
    if not Path(video).is_file():
        raise VilampError(f"there is no video {video}")  # before a model is loaded
    with _bar() as progress:
        progress("loading the model", 0, 0)
        from vilamp.session import load_configured, tidy

        for question in questions:
            tidy(question)
        loaded = load_configured(cfg)
        session = loaded.open(video, progress)
    if loaded.remark:
        print(loaded.remark, file=sys.stderr)
    return session


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda doing, done, total: bar.update(task, description=doing, completed=done, total=total or None)


def _talk(teller: _Teller, quiet: bool) -> int:
    """Question after question; a question that cannot be asked is told, and ends nothing.

    Returns:
        The exit code, which tells of a picture that is missing.
    """
    code = 0
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a question with bytes that are no text is asked as far as they are
    if sys.stdin.isatty():
        import readline  # noqa: F401  (arrow keys)

        print("Ask what you like about the video; Ctrl-D ends.", file=sys.stderr)
    try:
        while True:
            try:
                teller.tell(input("? " if sys.stdin.isatty() and not quiet else ""))
            except OutputError as error:
                code = report(error)
            except VilampError as error:
                report(error)
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
    return code


class _Teller:
    """Puts answers on the screen and into files."""

    def __init__(self, session: Session, arguments: argparse.Namespace) -> None:
        from rich.console import Console

        self.session, self.arguments = session, arguments
        self.console = Console()
        self.count = 0

    def tell(self, question: str) -> None:
        """Ask, and show the answer.

        Raises:
            VilampError: the question cannot be asked, or the picture cannot be written.
        """
        answer = self.session.ask(question)
        self.count += 1
        if self.arguments.json:
            picture = None
            try:
                picture = self._picture(answer)
            finally:  # a disk may have become full, and the answer is there
                named = {"video": self.arguments.video, **answer.as_dict(), "timeline": picture}
                print(json.dumps(named), flush=True)
            return
        self._show(self.console, answer)
        picture = self._picture(answer)
        if picture is not None:
            print(f"timeline: {picture}")

    def _show(self, console: Console, answer: Answer) -> None:
        from rich.text import Text

        from vilamp.cli.sparkline import sparkline

        sure = Text(f"  ({answer.confidence:.0%} sure, {answer.seconds:.2f} s)", "dim")
        console.print(Text(answer.text or "(nothing)", "bold") + sure)
        lines = sparkline(answer.times.tolist(), answer.relevance, answer.keyframes, console.width)
        console.print(lines, markup=False, highlight=False)
        told = ", ".join(f"{time:.1f}" for time in answer.keyframes)
        console.print(Text(f"keyframes at {told} s" if told else "no keyframes", "dim"), soft_wrap=True)
        query = answer.question.source.query
        if query != answer.question.source.question:
            console.print(Text(f"searched for: {query} (the scorer reads no more)", "dim"), soft_wrap=True)
        if self.arguments.thumbnails:
            self._thumbnails(console, answer)

    def _thumbnails(self, console: Console, answer: Answer) -> None:
        from vilamp.data.packing.thumbnails import half_blocks

        frames = self.session.video.frames[answer.selection.keyframes.cpu()]
        step = -(-frames.shape[1] // _THUMBNAIL)
        even = -(-frames.shape[1] // step) // 2 * 2
        small = frames[:, ::step, ::step][:, :even].numpy()
        abreast = max(console.width // (small.shape[2] + 1), 1)
        for start in range(0, len(small), abreast):
            console.print(half_blocks(small[start : start + abreast]))

    def _picture(self, answer: Answer) -> str | None:
        file: Path | None = self.arguments.timeline
        if file is None:
            return None
        if self.count > 1:  # the ones before it stay
            file = file.with_stem(f"{file.stem}-{self.count}")
        with _writing_timeline(file):
            self.session.timeline(answer).savefig(file, format="png")
        return str(file)
