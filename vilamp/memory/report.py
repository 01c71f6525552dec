"""What was counted, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from vilamp.memory.plan import SHARDED, WEIGHTS, Plan, plan

GIB = 2**30
CARDS = (24, 40, 80)
"""Sizes of GPU, in GB as they are sold, taken as GiB."""
OVERHEAD_GIB = 0.75
"""CUDA's context, its libraries' workspaces and what the allocator cannot use; assumed, not counted."""
SETTINGS = (
    "mode",
    "frames",
    "num_keyframes",
    "tokens_per_keyframe",
    "text_tokens",
    "answer_tokens",
    "batch",
    "precision",
    "gpus",
    "device",
)


@dataclass(frozen=True)
class Prediction:
    """The peak of one GPU.

    Attributes:
        total_gib: all of it.
        parts: label -> GiB at that moment; the sum is ``total_gib``.
        phase: when it is reached.
        phases: the peak of every phase, in GiB.
        fits: card -> whether it is large enough.
        sequence: tokens in the language model.
        trainable: number of trained parameters.
        settings: what was asked.
    """

    total_gib: float
    parts: dict[str, float]
    phase: str
    phases: dict[str, float]
    fits: dict[str, bool]
    sequence: int
    trainable: int
    settings: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, as they go into JSON."""
        return asdict(self)

    def table(self) -> Table:
        """Where the memory goes."""
        table = Table("part", "GiB", title=f"peak of one GPU, reached while: {self.phase}")
        for part, size in sorted(self.parts.items(), key=lambda item: -item[1]):
            table.add_row(part.replace("_", " "), f"{size:.2f}")
        table.add_row("total", f"{self.total_gib:.2f}", style="bold")
        for card, fits in self.fits.items():
            table.add_row(f"a card of {card}", "fits" if fits else "too small")
        return table


def predict(cfg: DictConfig) -> Prediction:
    """The peak of the run that ``conf/memory.yaml`` with ``cfg``'s settings describes."""
    counted = plan(cfg)
    phases = {name: _on_one_gpu(live, counted, cfg.gpus) for name, live in counted.phases.items()}
    phase = max(phases, key=lambda name: phases[name].total())
    parts = {label: size / GIB for label, size in phases[phase].items() if size > 0}
    if cfg.device == "cuda":
        parts["overhead"] = OVERHEAD_GIB
    total = sum(parts.values())
    return Prediction(
        total_gib=total,
        parts=parts,
        phase=phase,
        phases={name: live.total() / GIB for name, live in phases.items()},
        fits={f"{card} GB": total <= card for card in CARDS},
        sequence=counted.sequence,
        trainable=counted.trainable,
        settings={name: cfg[name] for name in SETTINGS},
    )


def _on_one_gpu(live: Counter[str], counted: Plan, gpus: int) -> Counter[str]:
    """Shares of what is spread, and what is whole all the same."""
    if gpus == 1:
        return live
    shared = Counter({label: size // gpus if label in SHARDED else size for label, size in live.items()})
    if live[WEIGHTS]:
        shared["gathered"] = counted.gathered
    return shared
