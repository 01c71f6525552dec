"""The projector: vision features -> the language model's space (ViLaMP, Eq. 11)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from vilamp.errors import ConfigError


def _mlp(vision_dim: int, language_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(vision_dim, language_dim), nn.GELU(), nn.Linear(language_dim, language_dim))


class Projector(nn.Module):
    """Two two-layer MLPs: one for the patches of keyframes, one for merged tokens.

    A merger in the language space works on what the first MLP gives; then there is no second one.

    Args:
        path: a safetensors file with the weights of ``keyframe`` and, if it knows them, of ``merged`` and ``newline``;
            None for random ones.  A file without ``merged`` (a model that never merged) starts it as a copy of
            ``keyframe``; one without ``newline`` starts that at random.
        keyframe_grid: keyframes are pooled (bilinearly, after projection) to this many tokens a side; None keeps all
            patches.
        newline: one learned embedding follows the last frame of a video.
        vision_dim: Dv, runtime.
        language_dim: D, runtime.
        merges: runtime; False leaves ``merged`` out, which nothing would use behind a merger in the language space or
            behind one that drops the frames.

    Raises:
        ConfigError: a grid without tokens, or weights that do not fit.
    """

    merged: nn.Sequential | None
    newline: nn.Parameter | None

    def __init__(
        self,
        path: str | None = None,
        keyframe_grid: int | None = None,
        newline: bool = False,
        *,
        vision_dim: int,
        language_dim: int,
        merges: bool = True,
    ):
        super().__init__()
        if keyframe_grid is not None and keyframe_grid < 1:
            raise ConfigError(f"model.projector.keyframe_grid must be at least 1, or null, got {keyframe_grid}")
        self.keyframe_grid = keyframe_grid
        self.language_dim = language_dim
        self.keyframe = _mlp(vision_dim, language_dim)
        self.merged = _mlp(vision_dim, language_dim) if merges else None
        self.newline = nn.Parameter(torch.randn(language_dim) / math.sqrt(language_dim)) if newline else None
        if path is not None:
            self._load(path)

    def _load(self, path: str) -> None:
        state = load_file(path)
        if not any(name.startswith("merged.") for name in state):
            state |= {name.replace("keyframe.", "merged.", 1): value.clone() for name, value in state.items()}
        if self.merged is None:
            state = {name: value for name, value in state.items() if not name.startswith("merged.")}
        if self.newline is not None:
            state.setdefault("newline", self.newline.detach())
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise ConfigError(f"model.projector.path={path} does not fit the model: {error}") from error

    def tokens_per_keyframe(self, patches: int) -> int:
        """How many tokens a keyframe of P patches becomes."""
        return patches if self.keyframe_grid is None else self.keyframe_grid**2

    @property
    def tokens_per_video(self) -> int:
        """How many tokens a video has beside those of its frames."""
        return 0 if self.newline is None else 1

    def project_keyframes(self, patches: Tensor) -> Tensor:
        """float[k, P, Dv] -> float[k, tokens_per_keyframe, D]."""
        return self.pool(self.keyframe(patches))

    def pool(self, projected: Tensor) -> Tensor:
        """float[k, P, D], patches that went through ``keyframe`` -> float[k, tokens_per_keyframe, D]."""
        if self.keyframe_grid is None:
            return projected
        side = math.isqrt(projected.shape[1])
        picture = projected.transpose(1, 2).unflatten(2, (side, side))  # [k, D, side, side]
        size = (self.keyframe_grid, self.keyframe_grid)
        return F.interpolate(picture, size, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)

    def project_merged(self, tokens: Tensor) -> Tensor:
        """float[m, T, Dv] -> float[m, T, D]."""
        if self.merged is not None:
            return self.merged(tokens)
        if tokens.shape[1]:
            raise RuntimeError("this projector was built for a merger whose tokens need no projection")
        return tokens.new_zeros(len(tokens), 0, self.language_dim)

    def end(self, parts: Sequence[Tensor]) -> Tensor:
        """Float[., D], the tokens of a video's frames in order -> float[V, D], with those of the video behind them."""
        ending = [] if self.newline is None else [self.newline[None].to(parts[0].dtype)]
        return torch.cat([*parts, *ending])
