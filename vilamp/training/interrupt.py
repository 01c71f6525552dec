"""Ctrl-C, which ends a run with one message that says what there is of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vilamp.errors import Interrupted


@contextmanager
def told_interrupts(remains: Callable[[], str]) -> Iterator[None]:
    """Within this, Ctrl-C ends in :class:`~vilamp.errors.Interrupted`, also where Lightning has caught it.

    Lightning ignores further ones while it closes, calls ``sys.exit(1)``, and leaves them ignored.

    Args:
        remains: says what there is of the run, asked when it was interrupted.

    Raises:
        Interrupted: in place of a KeyboardInterrupt.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stopped:
        if not isinstance(stopped, KeyboardInterrupt) and not isinstance(stopped.__context__, KeyboardInterrupt):
            raise
        raise Interrupted(remains()) from stopped
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may set what signals do
            signal.signal(signal.SIGINT, before)
