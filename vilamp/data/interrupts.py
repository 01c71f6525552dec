"""Ctrl-C, which reaches every process of a terminal, while one of them is being started.  The standard library only."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

CAN_DEFER = hasattr(signal, "pthread_sigmask")
"""Whether this system lets signals wait (Windows does not)."""


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Within this, Ctrl-C waits: here until it is over, in a process that is started until it says what it does then.

    Python would meet it with a traceback as long as it imports what the process needs.
    """
    if not CAN_DEFER:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
