"""SIGTERM, by which a scheduler asks for the machine: the run saves, and its exit code says that it is to go on.

Lightning's own answer broadcasts within the signal's handler, where the other ranks may be anywhere, and hangs.  Here
the handler only notes the signal.  Before every batch the ranks tell each other whether one of them has got it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lightning import Trainer

from vilamp.errors import Preempted


class Preemption:
    """Whether SIGTERM has come.

    Attributes:
        asked: on this rank.
    """

    def __init__(self) -> None:
        self.asked = False
        self._deferred = False

    @contextmanager
    def heeded(self, remains: Callable[[], str]) -> Iterator[None]:
        """Within this, SIGTERM ends in :class:`~vilamp.errors.Preempted`, at once where it is not :meth:`deferred`.

        Args:
            remains: says what there is of the run, asked when it is stopped.

        Raises:
            Preempted: SIGTERM has come.
        """
        if threading.current_thread() is not threading.main_thread():  # no other may set what signals do
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            first, self.asked = not self.asked, True
            if first and not self._deferred:
                raise Preempted(remains())

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        except Preempted as stopped:
            raise Preempted(remains()) from stopped  # there may be a newer checkpoint
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def deferred(self, trainer: Trainer) -> Iterator[None]:
        """Within this, SIGTERM is only noted, for all ranks to end together where one of them asks :meth:`of_any`."""
        trainer._signal_connector.register_signal_handlers = lambda: None  # of Lightning, for which there is no setting
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def of_any(self, trainer: Trainer) -> bool:
        """Whether a rank has got it; all must ask at the same place."""
        return trainer.strategy.reduce_boolean_decision(self.asked, all=False)
