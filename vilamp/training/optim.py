"""AdamW with one learning rate for each part of the model, warm-up and cosine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup

from vilamp.errors import ConfigError
from vilamp.models.lora import adapter_parameters


class PartwiseAdamW:
    """Which parts train, and how fast.

    Args:
        lr: part -> peak learning rate; null freezes the part.  Parts are the children of
            :class:`~vilamp.models.video_lm.VideoLM`; one that is not named is an error, so that nothing trains or stays
            frozen by oversight.
        weight_decay: for matrices; vectors (biases, norms) are not decayed.
        betas: of AdamW.
        warmup: share of all steps in which the rate rises linearly.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self, lr: Mapping[str, float | None], weight_decay: float, betas: tuple[float, float], warmup: float
    ) -> None:
        wrong = [f"optim.lr.{part}={rate}" for part, rate in lr.items() if rate is not None and rate <= 0]
        if wrong:
            raise ConfigError(f"{wrong[0]} must be positive; null freezes a part")
        if not 0 <= warmup < 1:
            raise ConfigError(f"optim.warmup={warmup} must be a share of the steps, from 0 to below 1")
        if weight_decay < 0 or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(
                "optim.weight_decay must be at least 0 and optim.betas two numbers from 0 to below 1, got "
                f"{weight_decay} and {list(betas)}"
            )
        self.lr = dict(lr)
        self.weight_decay = weight_decay
        self.betas = (float(betas[0]), float(betas[1]))
        self.warmup = warmup

    def freeze(self, model: nn.Module) -> None:
        """Switch gradients off and evaluation mode on in the parts without a rate; in the others the other way round.

        A part with adapters trains these, and keeps its own weights.

        Raises:
            ConfigError: ``lr`` names a part that the model lacks or lacks one that it has, adapters have no rate, or
                nothing would train.
        """
        parts = dict(model.named_children())
        unknown, missing = sorted(set(self.lr) - set(parts)), sorted(set(parts) - set(self.lr))
        if unknown or missing:
            raise ConfigError(
                f"optim.lr must name every part of the model, {sorted(parts)}: unknown {unknown}, missing {missing}"
            )
        for name, part in parts.items():
            trains, adapters = self.lr[name] is not None, adapter_parameters(part)
            if adapters and not trains:
                without = "lora=default, which has none there" if name == "vision_tower" else "lora=none"
                raise ConfigError(f"optim.lr.{name}=null would leave its adapters untrained; set a rate, or {without}")
            part.requires_grad_(trains and not adapters).train(trains)
            for parameter_name in adapters:
                part.get_parameter(parameter_name).requires_grad_(trains)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError("nothing would train: every part in optim.lr is null or has no parameters")

    def optimizer(self, model: nn.Module, total_steps: int) -> tuple[AdamW, LambdaLR]:
        """The optimiser over what :meth:`freeze` left trainable, and its schedule by step."""
        groups = []
        for name, part in model.named_children():
            trainable = [parameter for parameter in part.parameters() if parameter.requires_grad]
            for decay in (self.weight_decay, 0.0):
                chosen = [p for p in trainable if (p.dim() >= 2) == (decay is self.weight_decay)]
                if chosen:
                    groups.append({"params": chosen, "lr": self.lr[name], "weight_decay": decay, "name": name})
        optimizer = torch.optim.AdamW(groups, betas=self.betas)
        return optimizer, get_cosine_schedule_with_warmup(optimizer, round(self.warmup * total_steps), total_steps)
