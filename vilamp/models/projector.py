"""The projector: vision features -> the language model's space (ViLaMP, Eq. 11)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from vilamp.errors import ConfigError


def _mlp(vision_dim: int, language_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(vision_dim, language_dim), nn.GELU(), nn.Linear(language_dim, language_dim))


class Projector(nn.Module):
    """Two two-layer MLPs: one for the patches of keyframes, one for merged tokens.

    Args:
        path: a safetensors file with the weights of ``keyframe`` and, if it knows them, of ``merged``; None for random
            ones.  A file without ``merged`` (a model that never merged) starts it as a copy of ``keyframe``.
        keyframe_grid: keyframes are pooled (bilinearly, after projection) to this many tokens a side; None keeps all
            patches.
        vision_dim: Dv, runtime.
        language_dim: D, runtime.
    """

    def __init__(
        self, path: str | None = None, keyframe_grid: int | None = None, *, vision_dim: int, language_dim: int
    ):
        super().__init__()
        self.keyframe_grid = keyframe_grid
        self.keyframe = _mlp(vision_dim, language_dim)
        self.merged = _mlp(vision_dim, language_dim)
        if path is not None:
            state = load_file(path)
            if not any(name.startswith("merged.") for name in state):
                state |= {name.replace("keyframe.", "merged.", 1): value.clone() for name, value in state.items()}
            try:
                self.load_state_dict(state)
            except RuntimeError as error:
                raise ConfigError(f"model.projector.path={path} does not fit the model: {error}") from error

    def tokens_per_keyframe(self, patches: int) -> int:
        """How many tokens a keyframe of P patches becomes."""
        return patches if self.keyframe_grid is None else self.keyframe_grid**2

    def project_keyframes(self, patches: Tensor) -> Tensor:
        """float[k, P, Dv] -> float[k, tokens_per_keyframe, D]."""
        projected = self.keyframe(patches)
        if self.keyframe_grid is None:
            return projected
        side = math.isqrt(patches.shape[1])
        picture = projected.transpose(1, 2).unflatten(2, (side, side))  # [k, D, side, side]
        size = (self.keyframe_grid, self.keyframe_grid)
        return F.interpolate(picture, size, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)

    def project_merged(self, tokens: Tensor) -> Tensor:
        """float[m, T, Dv] -> float[m, T, D]."""
        return self.merged(tokens)
