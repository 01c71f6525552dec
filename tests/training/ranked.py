"""One rank of a run: ``vilamp train`` with the arguments, which leaves the weights that its last step made.

    torchrun --nproc-per-node 2 tests/training/ranked.py FOLDER settings...

Writes ``FOLDER/rank<number>.pt``: the state dict, and the model's folder of this rank.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig

from vilamp.cli import app
from vilamp.training.module import VideoQA
from vilamp.training.run import train
from vilamp.training.sharding import whole


class Watched(VideoQA):
    """As trained, before the best checkpoint is read back."""

    def on_train_end(self) -> None:
        """Leave the weights."""
        steps = torch.tensor(self.global_step)
        weights = {name: whole(weight) for name, weight in self.state_dict().items()}
        torch.save({"steps": steps, **weights}, Path(sys.argv[1], f"rank{os.environ.get('RANK', 0)}.pt"))


def task(cfg: DictConfig) -> None:
    """Train."""
    import vilamp.training.run as module

    module.VideoQA = Watched  # type: ignore[misc]
    train(cfg)


if __name__ == "__main__":
    sys.exit(app.run(task, "train", sys.argv[2:]))
