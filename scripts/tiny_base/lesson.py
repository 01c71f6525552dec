"""One course of training: AdamW with warm-up and a cosine."""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

console = Console()


def cosine(step: int, steps: int, warm_up: int = 50) -> float:
    """The factor of the learning rate at a step."""
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))


class Lesson:
    """AdamW over some parts of the model for a number of steps, with its schedule and a line now and then."""

    def __init__(self, name: str, parts: list[torch.nn.Module], peak: float, steps: int) -> None:
        self.name, self.peak, self.steps, self.done = name, peak, steps, 0
        self.parameters = [p for part in parts for p in part.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=peak, weight_decay=0.05, betas=(0.9, 0.98))

    def step(self, loss: Tensor, **told: float) -> None:
        """One step down the loss."""
        self.optimizer.param_groups[0]["lr"] = self.peak * cosine(self.done, self.steps)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.done += 1
        if self.done % 100 == 0:
            figures = "".join(f" {name} {value:.3f}" for name, value in told.items())
            console.print(f"{self.name} {self.done}: loss {loss.item():.4f}{figures}")
