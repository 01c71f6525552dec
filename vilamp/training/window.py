"""What the batches of one optimiser step add up to: of all ranks, and of all batches that gradients accumulate over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vilamp.models.video_lm import Output
from vilamp.samples import Batch


@dataclass(frozen=True)
class Sums:
    """Of one optimiser step.

    Attributes:
        total: cross entropy summed over all answer tokens.
        tokens: how many there are.
        exact: questions that were answered to the letter.
        questions: how many there are.
    """

    total: float
    tokens: float
    exact: float
    questions: float

    @property
    def figures(self) -> dict[str, float]:
        """What is logged of them; nothing where every question was skipped."""
        if not self.questions:
            return {}
        return {"train/loss": self.total / max(self.tokens, 1), "train/accuracy": self.exact / self.questions}


@dataclass
class Window:
    """The batches of this rank since the last optimiser step."""

    sums: list[Tensor] = field(default_factory=list)
    keys: list[list[str]] = field(default_factory=list)

    def add(self, batch: Batch, output: Output) -> None:
        """Count a batch."""
        total = output.total.detach().float()
        counts = total.new_tensor([output.answer_tokens, 0, len(batch.questions)])
        counts[1] = output.exact.sum()
        self.sums.append(torch.cat([total[None], counts]))
        self.keys.append([question.key for question in batch.questions])

    def close(self, over_ranks: Callable[[Tensor], Tensor]) -> Sums:
        """The sums over the batches and the ranks.

        Args:
            over_ranks: adds a tensor up over all ranks.
        """
        return Sums(*over_ranks(torch.stack(self.sums).sum(dim=0)).tolist())

    def suspects(self) -> list[str]:
        """Keys of the questions in batches whose loss is no finite number; of all batches where each of them is."""
        found = [key for sums, keys in zip(self.sums, self.keys, strict=True) for key in keys if not sums[0].isfinite()]
        return found or [key for keys in self.keys for key in keys]
