"""The heart: one video goes in as a stream of chunks, and one visual sequence per question comes out.

Patch features exist for one chunk of frames at a time; what is kept of a chunk is its part of the visual sequence.
The running state from chunk to chunk is what later frames are compared with: the last keyframe's patches, one value for
each question, or the first K frames of the video (:mod:`vilamp.models.anchors`).  So memory is O(chunk + K) in patches
and O(N) in nothing but those tokens, and no result depends on the chunk size.

Legend: N frames, n frames of a chunk, P patches, K keyframes, Dv vision width, D language width, T tokens of a merged
frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vilamp.interfaces import FrameMerger
from vilamp.models.anchors import BY_NUMBER, PRECEDING, Part, frames_by_number, grow, preceding_keyframes
from vilamp.models.frame_features import FrameFeatures
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
        anchor: what a merged frame is compared with, one of :data:`vilamp.models.anchors.RULES`.
    """

    def __init__(
        self,
        vision_tower: nn.Module,
        merger: FrameMerger,
        projector: Projector,
        chunk_size: int,
        anchor: str = PRECEDING,
    ) -> None:
        super().__init__()
        self.vision_tower = vision_tower
        self.merger = merger
        self.projector = projector
        self.chunk_size = chunk_size
        self.anchor = anchor

    def forward(self, frames: Tensor | FrameFeatures, views: Sequence[View]) -> list[Tensor]:
        """One visual sequence for each question about a video.

        The vision tower runs once over the video, however many questions there are.

        Args:
            frames: uint8[N, H, W, 3], on any device; moved chunk by chunk.  Or their features, which may be kept from
                an earlier question.
            views: one for each question.

        Returns:
            For each view float[V, D], V = K * tokens_per_keyframe + (N - K) * tokens_per_frame + tokens_per_video.
        """
        features = frames if isinstance(frames, FrameFeatures) else FrameFeatures(self.vision_tower, frames)
        num_frames = len(features)
        generator_states = [torch.Generator().manual_seed(view.seed).get_state() for view in views]
        carries: list[Tensor | None] = [None] * len(views)
        sequences: list[list[Tensor]] = [[] for _ in views]
        for start in range(0, num_frames, self.chunk_size):
            stop = min(start + self.chunk_size, num_frames)
            parts = [Part.of(view.keyframes, start, stop) for view in views]
            encode = partial(features.chunk, start, stop)
            tokens, carries, generator_states = self._run(encode, views, parts, carries, generator_states)
            for sequence, new in zip(sequences, tokens, strict=True):
                sequence.append(new)
        return [self.projector.end(sequence) for sequence in sequences]

    @property
    def _projects_first(self) -> bool:
        return self.merger.space == "language"

    def _run(
        self,
        encode: Callable[[], Tensor],
        views: Sequence[View],
        parts: list[Part],
        carries: list[Tensor | None],
        generator_states: list[Tensor],
    ) -> tuple[list[Tensor], list[Tensor | None], list[Tensor]]:
        """One chunk, recomputed in the backward pass where activations of all its patches would otherwise be stored.

        Random draws start from the state that the chunk is given, not from a shared generator, because a recomputation
        must draw again what the first computation drew.
        """
        next_states: list[Tensor] = []

        def distil(*carries: Tensor | None) -> tuple[list[Tensor], list[Tensor | None]]:
            next_states.clear()
            patches = self._patches(encode)  # [n, P, Dv or D]
            kept = list(carries)
            if self.anchor == BY_NUMBER and views:
                # One tensor for all questions, whose keyframes differ: the first frames of the video do not.
                kept = [grow(carries[0], patches, max(len(view.keyframes) for view in views))] * len(views)
            outputs = []
            for i, (view, part, state) in enumerate(zip(views, parts, generator_states, strict=True)):
                generator = torch.Generator()
                generator.set_state(state)
                keyframes, merged = self._distil(patches, part, kept[i], view.query, generator)
                if self.anchor == PRECEDING and len(part.keyframes):
                    kept[i] = keyframes[-1:].clone()  # a slice would keep all of them in memory
                outputs.append(self._tokens(keyframes, merged, part))
                next_states.append(generator.get_state())
            return outputs, kept

        if torch.is_grad_enabled() and self._stores_activations():
            outputs, kept = checkpoint(distil, *carries, use_reentrant=False)
        else:
            outputs, kept = distil(*carries)
        return outputs, kept, next_states

    def _stores_activations(self) -> bool:
        parts = [self.vision_tower, self.merger]
        if self._projects_first:
            parts.append(self.projector)
        return any(parameter.requires_grad for part in parts for parameter in part.parameters())

    def _patches(self, encode: Callable[[], Tensor]) -> Tensor:
        """The patches of a chunk in the space that the merger works in, once for all questions."""
        trains = torch.is_grad_enabled() and any(p.requires_grad for p in self.vision_tower.parameters())
        with torch.set_grad_enabled(trains):
            # A frozen tower may be held in fewer bits than the projector, which trains.
            patches: Tensor = encode().to(self.projector.keyframe[0].weight.dtype)  # type: ignore[arg-type]
        return self.projector.keyframe(patches) if self._projects_first else patches

    def _distil(
        self, patches: Tensor, part: Part, carry: Tensor | None, query: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Split one chunk into keyframes and the rest, and merge the rest.

        Args:
            patches: float[n, P, D], here and below in the merger's space.
            part: which of them are keyframes.
            carry: the last keyframe before this chunk, or the first frames of the video up to this chunk's last.
            query: float[Ds].
            generator: for the merger.

        Returns:
            float[k, P, D], the keyframes' patches; float[n - k, T, D], the merged tokens.
        """
        device = patches.device
        keyframes = patches[part.keyframes.to(device)]
        to_merge = patches[part.rest.to(device)] if len(part.keyframes) else patches  # most chunks have none
        if self.anchor == BY_NUMBER:
            anchors, anchor_of = frames_by_number(part, to_merge, carry)
        else:
            anchors, anchor_of = preceding_keyframes(part, keyframes, carry)
        return keyframes, self.merger(to_merge, anchors, anchor_of.to(device), query, generator=generator)

    def _tokens(self, keyframes: Tensor, merged: Tensor, part: Part) -> Tensor:
        """The chunk's part of the visual sequence, float[., D], from what :meth:`_distil` returns."""
        if self._projects_first:
            keyframes = self.projector.pool(keyframes)
        else:
            keyframes, merged = self.projector.project_keyframes(keyframes), self.projector.project_merged(merged)
        num_frames = len(part.keyframes) + len(part.rest)
        return interleave(keyframes, merged.to(keyframes.dtype), part.keyframes, num_frames)
