"""Errors that a user can mend, kept apart from faults of ours.

Everything here is caught by the command line and printed as one message without a traceback.  A message names what was
wrong, the value seen and the setting to change.
"""

from vilamp.credentials import without_credentials


class VilampError(ValueError):
    """A mistake in the input or the configuration; the message says which setting to change."""


class ConfigError(VilampError):
    """The configuration asks for something that does not exist or does not fit together."""


class PluginError(VilampError):
    """A plugin cannot be used: it fails to import, shares its name with another, or breaks the contract."""


class DataError(VilampError):
    """The data as a whole cannot be used (no shard matches, nothing in them).

    A single unusable sample is no DataError: it is skipped, counted and listed (:class:`vilamp.samples.Skip`).
    """

    def __init__(self, message: str) -> None:
        super().__init__(without_credentials(message))


class OutputError(VilampError):
    """What a run would write does not find room, or a folder that takes it."""


class DivergedError(VilampError):
    """The loss or a gradient of a training step is not finite; the message says where."""


class LostRankError(VilampError):
    """Another process of the run has ended, so that this one cannot go on."""


class LostWorkerError(VilampError):
    """A process that reads the data has ended, so that the run cannot go on."""


class Preempted(SystemExit):
    """SIGTERM ended a run that is to go on; the message says what there is of it.  A program ends with :attr:`CODE`."""

    CODE = 143
    """128 and the number of the signal, as shells have it."""

    def __init__(self, remains: str = "") -> None:
        super().__init__(self.CODE)
        self.remains = remains

    def __str__(self) -> str:
        return self.remains


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a run; the message says what there is of it."""
