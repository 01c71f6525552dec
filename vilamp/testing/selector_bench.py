"""What a selector is tried on, and how its selections are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vilamp.interfaces import FrameSelector, Selection
from vilamp.testing.kit import require, require_close, seeded


@dataclass(frozen=True)
class Inputs:
    """Arguments of a selector."""

    frames: Tensor
    query: Tensor
    timestamps: Tensor

    def select(self, selector: nn.Module, num_keyframes: int = 4) -> Selection:
        """Call the selector with a fresh generator."""
        return selector(self.frames, self.query, num_keyframes, timestamps=self.timestamps, generator=seeded())


@dataclass(frozen=True)
class Bench:
    """A plugin and what to try it on.

    Attributes:
        build: makes a fresh selector.
        width: Ds.
    """

    build: Callable[[], FrameSelector]
    width: int

    def video(self, num_frames: int = 40, seed: int = 0) -> Inputs:
        """A video of a few noisy scenes, one frame a second, and a question about one of them."""
        generator = seeded(seed)
        scenes = torch.randn(6, self.width, generator=generator)
        shown = torch.arange(num_frames) * len(scenes) // num_frames
        frames = scenes[shown] + 0.4 * torch.randn(num_frames, self.width, generator=generator)
        query = scenes[2] + 0.5 * torch.randn(self.width, generator=generator)
        seconds = torch.arange(num_frames, dtype=torch.float64)
        return Inputs(F.normalize(frames, dim=-1), F.normalize(query, dim=-1), seconds)


def require_valid(selection: Selection, num_frames: int, num_keyframes: int) -> None:
    """The selection is one of at most K of N frames, with a finite relevance for every frame or none."""
    require(isinstance(selection, Selection), f"forward returned a {type(selection).__name__}, not a Selection")
    chosen = selection.keyframes.tolist()  # Selection itself sees to the type, the order and the sign
    require(len(chosen) <= num_keyframes, f"{len(chosen)} keyframes, but only {num_keyframes} were asked for")
    require(all(frame < num_frames for frame in chosen), f"keyframes {chosen} of a video of {num_frames} frames")
    relevance = selection.relevance
    if relevance is not None:
        shape = list(relevance.shape)
        require(shape == [num_frames] and relevance.is_floating_point(), f"relevance is {relevance.dtype}{shape}")
        require(bool(relevance.isfinite().all()), "relevance is not finite")


def require_same(got: Selection, want: Selection, case: str) -> None:
    """Keyframes are equal, and the relevance is close."""
    require(torch.equal(got.keyframes, want.keyframes), f"{case}: {got.keyframes.tolist()}, {want.keyframes.tolist()}")
    require((got.relevance is None) == (want.relevance is None), f"{case}: relevance only once")
    if got.relevance is not None and want.relevance is not None:
        require_close(f"{case}: relevance", got.relevance, want.relevance)
