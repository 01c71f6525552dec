"""What a merger is tried on, and how its tokens and gradients are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vilamp.interfaces import NO_ANCHOR, FrameMerger
from vilamp.testing.kit import require, seeded


@dataclass(frozen=True)
class Inputs:
    """Arguments of a merger."""

    patches: Tensor
    anchors: Tensor
    anchor_of: Tensor
    query: Tensor

    def merge(self, merger: nn.Module, generator: torch.Generator | None = None) -> Tensor:
        """Call the merger, with a fresh generator unless one is given."""
        generator = seeded() if generator is None else generator
        return merger(self.patches, self.anchors, self.anchor_of, self.query, generator=generator)

    def tell(self, merger: FrameMerger, generator: torch.Generator | None = None) -> Tensor | None:
        """As :meth:`merge`, but ask for the weights."""
        generator = seeded() if generator is None else generator
        return merger.token_weights(self.patches, self.anchors, self.anchor_of, self.query, generator=generator)

    def merge_in_chunks(self, merger: nn.Module, sizes: Sequence[int]) -> Tensor:
        """As :meth:`merge`, but chunk by chunk, and each chunk sees only the anchors that it needs."""
        generator = seeded()
        return torch.cat([chunk.merge(merger, generator) for chunk in self.chunks(sizes)])

    def chunks(self, sizes: Sequence[int]) -> Iterator[Inputs]:
        """The frames in chunks of these sizes, each with only the anchors that it needs."""
        start = 0
        for size in sizes:
            anchor_of = self.anchor_of[start : start + size]
            needed = anchor_of[anchor_of != NO_ANCHOR].unique()
            renumbered = torch.where(anchor_of == NO_ANCHOR, NO_ANCHOR, torch.searchsorted(needed, anchor_of))
            yield Inputs(self.patches[start : start + size], self.anchors[needed], renumbered, self.query)
            start += size

    def differentiable(self) -> Inputs:
        """A copy whose patches and anchors require gradients."""
        patches, anchors = (value.detach().clone().requires_grad_() for value in (self.patches, self.anchors))
        return replace(self, patches=patches, anchors=anchors)


@dataclass(frozen=True)
class Bench:
    """A plugin and what to try it on.

    Attributes:
        build: makes a fresh merger.
        dim: D.
        query_dim: Ds.
        num_patches: P.
    """

    build: Callable[[], FrameMerger]
    dim: int
    query_dim: int
    num_patches: int

    def chunk(self, num_frames: int = 7, num_anchors: int = 3, seed: int = 0) -> Inputs:
        """Frames of which the first have no anchor, and the rest are spread over the anchors in order."""
        generator = seeded(seed)
        patches = torch.randn(num_frames, self.num_patches, self.dim, generator=generator)
        anchors = torch.randn(num_anchors, self.num_patches, self.dim, generator=generator)
        anchor_of = torch.arange(num_frames) * (num_anchors + 1) // max(num_frames, 1) - 1
        return Inputs(patches, anchors, anchor_of, torch.randn(self.query_dim, generator=generator))


def require_valid(tokens: Tensor, inputs: Inputs, merger: FrameMerger) -> None:
    """The tokens are finite float[n, tokens_per_frame, D] in the dtype of the patches."""
    want = [len(inputs.patches), merger.tokens_per_frame, inputs.patches.shape[2]]
    require(isinstance(tokens, Tensor), f"forward returned a {type(tokens).__name__}, not a tensor")
    require(list(tokens.shape) == want, f"forward returned {list(tokens.shape)} instead of {want}")
    require(tokens.dtype == inputs.patches.dtype, f"{tokens.dtype} from patches of {inputs.patches.dtype}")
    require(bool(tokens.isfinite().all()), "the tokens are not finite")


def backward(tokens: Tensor) -> None:
    """Gradients of a weighted sum in which every number of the tokens has a weight of its own."""
    weights = torch.linspace(-1, 1, tokens.numel(), dtype=tokens.dtype, device=tokens.device)
    (tokens.flatten() * weights).sum().backward()


def _gradients(merger: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Gradients by name; zero where there is none."""
    named = {"patches": inputs.patches, "anchors": inputs.anchors, **dict(merger.named_parameters())}
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
        for name, value in named.items()
        if value.requires_grad
    }


def run_with_gradients(merger: nn.Module, inputs: Inputs, run: Callable[[Inputs], Tensor]) -> dict[str, Tensor]:
    """The gradients that ``run`` gives to the patches, the anchors and the parameters of ``merger``, by name."""
    merger.zero_grad()
    inputs = inputs.differentiable()
    backward(run(inputs))
    return _gradients(merger, inputs)
