"""What a run keeps off the screen: remarks of Lightning that tell its user nothing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_UNSAID = (
    # The run's folder is Hydra's too, and its files are nobody's earlier results.
    r"Experiment logs directory .* exists and is not empty",
    # The checkpoints of a run that goes on are its own.
    r"Checkpoint directory .* exists and is not empty",
    # Where in the epoch training goes on is the sampler's to know, and it does.
    r"You're resuming from a checkpoint that ended before the epoch ended",
    # Frozen parts stay in evaluation mode on purpose; PartwiseAdamW.freeze sets the mode of every part.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # data.val=null is how a run says that nothing validates.
    r"Total length of `list` across ranks is zero",
    # A run that ends before its first validation is validated then, and its best.ckpt is written.
    r"`ModelCheckpoint\(monitor='val/accuracy'\)` could not find the monitored key",
    # How many processes decode is data.num_workers, not as many as there are cores.
    r"The '\w+' does not have many workers",
    # The means that a validation logs are of all ranks already.
    r"It is recommended to use `self\.log\('[^']*', \.\.\., sync_dist=True\)`",
    # Between Lightning and torch; nobody who runs us can change it.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


@contextmanager
def without_remarks() -> Iterator[None]:
    """Errors and all other warnings are shown; Lightning's messages of level INFO are not (they come twice)."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _UNSAID:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
