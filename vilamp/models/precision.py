"""In which precision each weight is held."""

from __future__ import annotations

import torch
from torch import nn

from vilamp.errors import ConfigError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""The values of ``model.dtype``."""


def precision(name: str) -> torch.dtype:
    """The dtype that ``model.dtype`` names.

    Raises:
        ConfigError: it names none.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"model.dtype={name} must be one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def held_in(name: str, parameter: nn.Parameter, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a parameter of :class:`~vilamp.models.video_lm.VideoLM`.

    What trains is float32: an update is often smaller than the last digit of a bfloat16.  So is the scorer, which is
    small: which frames are selected must not depend on ``model.dtype``.  Everything else is ``dtype``.
    """
    return torch.float32 if parameter.requires_grad or name.startswith("scorer.") else dtype


def hold(model: nn.Module, dtype: torch.dtype) -> None:
    """Bring every parameter into the dtype of :func:`held_in`, one after the other; in place."""
    for name, parameter in model.named_parameters():
        wanted = held_in(name, parameter, dtype)
        if parameter.dtype != wanted:
            parameter.data = parameter.data.to(wanted)
