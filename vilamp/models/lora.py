"""LoRA: low-rank adapters beside the frozen linear layers of the language model, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from vilamp.errors import ConfigError
from vilamp.models.language_model import LanguageModel

PREFIX = "lora_"
"""What the names of an adapter's own modules begin with."""


class Lora:
    """Which layers get adapters, and of what size.

    Args:
        rank: r, the width of an adapter.
        alpha: an adapter's output is scaled by alpha / r.
        dropout: of an adapter's input in training.
        targets: endings of the names of linear layers; None for all in the language model's blocks.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self, rank: int = 64, alpha: float = 16, dropout: float = 0.05, targets: Sequence[str] | None = None
    ) -> None:
        if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"lora needs rank >= 1, alpha > 0 and 0 <= dropout < 1, got rank={rank}, alpha={alpha}, "
                f"dropout={dropout}"
            )
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.targets = None if targets is None else tuple(targets)

    def adapt(self, language_model: LanguageModel, *, weights: bool = True) -> None:
        """Put adapters into the language model; they change nothing until they are trained.

        Args:
            language_model: changed in place.
            weights: False leaves the adapters on the meta device, as the model's own parameters are.

        Raises:
            ConfigError: no layer has such a name.
        """
        lm = language_model.lm
        head = lm.get_output_embeddings()
        linear = [name for name, module in lm.named_modules() if isinstance(module, nn.Linear) and module is not head]
        endings = linear if self.targets is None else self.targets
        lost = [ending for ending in endings if not any(_ends(name, ending) for name in linear)]
        if lost:
            there = sorted({name.rpartition(".")[2] for name in linear})
            raise ConfigError(
                f"lora.targets={lost[0]} is no linear layer of the language model; there are: {', '.join(there)}"
            )
        chosen = [name for name in linear if any(_ends(name, ending) for ending in endings)]
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=chosen)
        inject_adapter_in_model(config, lm, low_cpu_mem_usage=not weights)


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def adapter_parameters(part: nn.Module) -> set[str]:
    """Names of the parameters that belong to adapters; none in a part without adapters."""
    return {name for name, _ in part.named_parameters() if any(step.startswith(PREFIX) for step in name.split("."))}
