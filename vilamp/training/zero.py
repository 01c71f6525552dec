"""DeepSpeed's ZeRO 2 as a strategy: each process has all weights, and its share of the optimiser's state."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch.optim import Optimizer


class Zero2(DeepSpeedStrategy):
    """Its checkpoints are files of the usual form without the optimiser, which no process has whole.

    DeepSpeed brings all weights to the precision of the run, the scorer's too.  It needs the extra ``deepspeed``.
    """

    def __init__(self) -> None:
        super().__init__(stage=2)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Nothing."""
        return {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write one file on the first rank, and not a folder of DeepSpeed's."""
        checkpoint["optimizer_states"] = []
        Strategy.save_checkpoint(self, checkpoint, filepath)
