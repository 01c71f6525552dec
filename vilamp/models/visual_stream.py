"""The heart: one video goes in as a stream of chunks, and one visual sequence per question comes out.

Patch features exist for one chunk of frames at a time; what is kept of a chunk are its keyframes' patches and its
merged tokens.  The running state from chunk to chunk is the last keyframe's patches, one value for each question.  So
memory is O(chunk + K) in patches and O(N) in tokens, and no result depends on the chunk size.

Legend: N frames, n frames of a chunk, P patches, K keyframes, Dv vision width, D language width, T tokens of a merged
frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vilamp.interfaces import FrameMerger
from vilamp.models.projector import Projector


@dataclass(frozen=True)
class View:
    """What one question wants of a video.

    Attributes:
        keyframes: int64[K] on the host, ascending.
        query: float[Ds], the question in the scorer's space.
        seed: of the merger's random draws.
    """

    keyframes: Tensor
    query: Tensor
    seed: int


def interleave(keyframe_tokens: Tensor, merged_tokens: Tensor, keyframes: Tensor, num_frames: int) -> Tensor:
    """Put all tokens of a video into temporal order.

    Args:
        keyframe_tokens: float[K, Tk, D].
        merged_tokens: float[N - K, T, D], the other frames in temporal order.
        keyframes: int64[K], ascending, on the host.
        num_frames: N.

    Returns:
        float[K * Tk + (N - K) * T, D].
    """
    is_keyframe = torch.zeros(num_frames, dtype=torch.bool)
    is_keyframe[keyframes] = True
    lengths = torch.where(is_keyframe, keyframe_tokens.shape[1], merged_tokens.shape[1])
    starts = lengths.cumsum(0) - lengths
    from_keyframes = (starts[is_keyframe, None] + torch.arange(keyframe_tokens.shape[1])).flatten()
    from_merged = (starts[~is_keyframe, None] + torch.arange(merged_tokens.shape[1])).flatten()
    source = torch.cat([from_keyframes, from_merged]).argsort()
    tokens = torch.cat([keyframe_tokens.flatten(0, 1), merged_tokens.flatten(0, 1)])
    return tokens[source.to(tokens.device)]


class VisualStream(nn.Module):
    """Vision tower, merger and projector over one video, chunk by chunk.

    It owns no weights of its own; the three parts are those of the :class:`~vilamp.models.video_lm.VideoLM`.

    Args:
        vision_tower: uint8[n, H, W, 3] -> float[n, P, Dv].
        merger: see :class:`~vilamp.interfaces.FrameMerger`.
        projector: into the language model's space.
        chunk_size: frames that are encoded at a time; changes memory and speed, never the result.
    """

    def __init__(self, vision_tower: nn.Module, merger: FrameMerger, projector: Projector, chunk_size: int) -> None:
        super().__init__()
        self.vision_tower = vision_tower
        self.merger = merger
        self.projector = projector
        self.chunk_size = chunk_size

    def forward(self, frames: Tensor, views: Sequence[View]) -> list[Tensor]:
        """One visual sequence for each question about a video.

        The vision tower runs once over the video, however many questions there are.

        Args:
            frames: uint8[N, H, W, 3], on any device; moved chunk by chunk.
            views: one for each question.

        Returns:
            For each view float[V, D], V = K * tokens_per_keyframe + (N - K) * tokens_per_frame.
        """
        num_frames = frames.shape[0]
        generator_states = [torch.Generator().manual_seed(view.seed).get_state() for view in views]
        carries: list[Tensor | None] = [None] * len(views)
        keyframe_parts: list[list[Tensor]] = [[] for _ in views]
        merged_parts: list[list[Tensor]] = [[] for _ in views]
        for start in range(0, num_frames, self.chunk_size):
            stop = min(start + self.chunk_size, num_frames)
            inside = [view.keyframes[(view.keyframes >= start) & (view.keyframes < stop)] - start for view in views]
            outputs, generator_states = self._run(frames[start:stop], views, inside, carries, generator_states)
            for i, (keyframe_patches, merged) in enumerate(outputs):
                keyframe_parts[i].append(keyframe_patches)
                merged_parts[i].append(merged)
                if len(keyframe_patches):
                    carries[i] = keyframe_patches[-1:]
        return [
            self._sequence(torch.cat(keyframe_parts[i]), torch.cat(merged_parts[i]), view.keyframes, num_frames)
            for i, view in enumerate(views)
        ]

    def _sequence(self, keyframe_patches: Tensor, merged: Tensor, keyframes: Tensor, num_frames: int) -> Tensor:
        keyframe_tokens = self.projector.project_keyframes(keyframe_patches)
        merged_tokens = self.projector.project_merged(merged) if self.merger.space == "vision" else merged
        return interleave(keyframe_tokens, merged_tokens.to(keyframe_tokens.dtype), keyframes, num_frames)

    def _run(
        self,
        frames: Tensor,
        views: Sequence[View],
        inside: list[Tensor],
        carries: list[Tensor | None],
        generator_states: list[Tensor],
    ) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """One chunk, recomputed in the backward pass where its activations would otherwise be stored.

        Random draws start from the state that the chunk is given, not from a shared generator, because a recomputation
        must draw again what the first computation drew.
        """
        next_states: list[Tensor] = []

        def distil(frames: Tensor, *carries: Tensor | None) -> list[tuple[Tensor, Tensor]]:
            next_states.clear()
            patches = self._encode(frames)  # [n, P, Dv]
            outputs = []
            for view, keyframes, carry, state in zip(views, inside, carries, generator_states, strict=True):
                generator = torch.Generator()
                generator.set_state(state)
                outputs.append(self._distil(patches, keyframes, carry, view.query, generator))
                next_states.append(generator.get_state())
            return outputs

        if torch.is_grad_enabled() and self._stores_activations():
            outputs = checkpoint(distil, frames, *carries, use_reentrant=False)
        else:
            outputs = distil(frames, *carries)
        return outputs, next_states

    def _stores_activations(self) -> bool:
        parts = [self.vision_tower, self.merger]
        if self.merger.space == "language":
            parts.append(self.projector)
        return any(parameter.requires_grad for part in parts for parameter in part.parameters())

    def _encode(self, frames: Tensor) -> Tensor:
        trains = any(parameter.requires_grad for parameter in self.vision_tower.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            return self.vision_tower(frames)

    def _distil(
        self, patches: Tensor, keyframes: Tensor, carry: Tensor | None, query: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Split one chunk into keyframes and the rest, and merge the rest.

        Args:
            patches: float[n, P, Dv].
            keyframes: int64[k] on the host, rows of ``patches``.
            carry: float[1, P, Dv], the last keyframe before this chunk, or None.
            query: float[Ds].
            generator: for the merger.

        Returns:
            float[k, P, Dv], the keyframes' patches; float[n - k, T, Dv or D], the merged tokens.
        """
        is_rest = torch.ones(len(patches), dtype=torch.bool)
        is_rest[keyframes] = False
        rest = is_rest.nonzero().squeeze(1)
        # The anchors are the carried keyframe, if any, and then the keyframes of this chunk, so the nearest preceding
        # one is a count of the keyframes before.
        anchor_of = torch.searchsorted(keyframes, rest) - (1 if carry is None else 0)
        device = patches.device
        keyframe_patches = patches[keyframes.to(device)]
        anchors = keyframe_patches if carry is None else torch.cat([carry, keyframe_patches])
        to_merge = patches[rest.to(device)]
        if self.merger.space == "language":
            to_merge, anchors = self.projector.keyframe(to_merge), self.projector.keyframe(anchors)
        merged = self.merger(to_merge, anchors, anchor_of.to(device), query, generator=generator)
        return keyframe_patches, merged
