"""The heart: videos go in as a stream of chunks, and one visual sequence per question comes out.

Patch features exist for one chunk of frames at a time; what is kept of a chunk is its part of the visual sequences.  A
chunk is filled from as many videos as it takes, one after the other.  The running state from chunk to chunk is that of
the one video that a chunk ends in: what later frames are compared with, the last keyframe's patches, one value for each
question, or the first K frames of the video (:mod:`vilamp.models.anchors`).  So memory is O(chunk + K) in patches and
O(N) in nothing but those tokens, and no result depends on the chunk size or on the other videos.  In training, what a
chunk has handed on stays until the backward pass: O(K) in patches for each video that a chunk's end has cut.

Legend: N frames, n frames of a chunk, P patches, K keyframes, Dv vision width, D language width, T tokens of a merged
frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vilamp.frame_file import FrameFile
from vilamp.interfaces import FrameMerger
from vilamp.models.anchors import BY_NUMBER, PRECEDING, Part, frames_by_number, grow, preceding_keyframes
from vilamp.models.frame_features import FrameFeatures, Span, cut
from vilamp.models.projector import Projector


@dataclass(frozen=True)
class View:
    """What one question wants of its video.

    Attributes:
        keyframes: int64[K] on the host, ascending.
        query: float[Ds], the question in the scorer's space.
        seed: of the merger's random draws.
        video: which of the videos it is about.
    """

    keyframes: Tensor
    query: Tensor
    seed: int
    video: int = 0


@dataclass(frozen=True)
class Share:
    """The share that one video has in a chunk, with the questions about it.

    Attributes:
        span: its frames.
        numbers: of its questions, among all.
        views: those of the questions.
        parts: the share as each question sees it.
    """

    span: Span
    numbers: list[int]
    views: list[View]
    parts: list[Part]

    @classmethod
    def of(cls, span: Span, views: Sequence[View]) -> Share:
        """With those of all views that are about this video."""
        numbers = [number for number, view in enumerate(views) if view.video == span.video]
        own = [views[number] for number in numbers]
        return cls(span, numbers, own, [Part.of(view.keyframes, span.start, span.stop) for view in own])


@dataclass(frozen=True)
class State:
    """What a chunk hands on to the next one of the same video, for each question about it.

    Attributes:
        carries: what later frames are compared with; None before there is any.
        draws: the state of the generator that the merger draws from.
    """

    carries: list[Tensor | None]
    draws: list[Tensor]

    @classmethod
    def first(cls, views: Sequence[View]) -> State:
        """At the beginning of a video."""
        return cls([None] * len(views), [torch.Generator().manual_seed(view.seed).get_state() for view in views])


@dataclass
class Course:
    """How far one question is through a video that no other is asked about.

    Attributes:
        view: what it wants.
        state: what the next frames are given.
        done: frames so far.
        tokens: the visual sequence so far, float[., D] for each call of :meth:`VisualStream.follow`.
    """

    view: View
    state: State
    done: int = 0
    tokens: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, view: View) -> Course:
        """At the beginning."""
        return cls(view, State.first([view]))


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


def token_steps(keyframes: Tensor, num_frames: int, per_keyframe: int, per_merged: int, merged_step: float) -> Tensor:
    """How far each token that :func:`interleave` gives stands behind the one before.

    Args:
        keyframes: int64[K], ascending, on the host.
        num_frames: N.
        per_keyframe: tokens of a keyframe, whose step is 1.
        per_merged: tokens of a merged frame.
        merged_step: the step of these.

    Returns:
        float[K * per_keyframe + (N - K) * per_merged].
    """
    lengths = torch.full((num_frames,), per_merged, dtype=torch.int64)
    steps = torch.full((num_frames,), merged_step, dtype=torch.float32)
    lengths[keyframes], steps[keyframes] = per_keyframe, 1.0
    return steps.repeat_interleave(lengths)


class VisualStream(nn.Module):
    """Vision tower, merger and projector over the videos of a batch, chunk by chunk.

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

    def forward(self, frames: Tensor | FrameFile | FrameFeatures, views: Sequence[View]) -> list[Tensor]:
        """One visual sequence for each question about some videos.

        The vision tower runs once over each video, however many questions there are, and not at all over one without.

        Args:
            frames: uint8[N, H, W, 3] of one video, on any device or in a file; moved chunk by chunk.  Or the features
                of one or several, which may be kept from an earlier question.
            views: one for each question.

        Returns:
            For each view float[V, D], V = K * tokens_per_keyframe + (N - K) * tokens_per_frame + tokens_per_video.
        """
        features = frames if isinstance(frames, FrameFeatures) else FrameFeatures(self.vision_tower, [frames])
        asked = {view.video for view in views}
        lengths = [length if video in asked else 0 for video, length in enumerate(features.lengths)]
        sequences: list[list[Tensor]] = [[] for _ in views]
        state = State([], [])
        for spans in cut(lengths, self.chunk_size):
            shares = [Share.of(span, views) for span in spans]
            if spans[0].start == 0:  # what came from the video before would stay in memory until the backward pass
                state = State([], [])
            tokens, state = self._run(partial(features.chunk, spans), shares, state)
            numbers = (number for share in shares for number in share.numbers)
            for number, new in zip(numbers, tokens, strict=True):
                sequences[number].append(new)
        return [self.projector.end(sequence) for sequence in sequences]

    @torch.no_grad()
    def patches(self, frames: Tensor) -> Tensor:
        """uint8[n, H, W, 3] -> float[n, P, Dv or D], in the space that the merger works in, for :meth:`follow`."""
        return self._patches(partial(self.vision_tower, frames))

    @torch.no_grad()
    def follow(self, patches: Tensor, course: Course) -> None:
        """Take one question through its next frames, where videos differ from question to question.

        Args:
            patches: float[n, P, .], as :meth:`patches` gives them.
            course: goes on by n frames.
        """
        span = Span(course.view.video, course.done, course.done + len(patches))
        (tokens,), course.state = self._share(patches, Share.of(span, [course.view]), course.state)
        course.tokens.append(tokens)
        course.done = span.stop

    @torch.no_grad()
    def end(self, course: Course) -> Tensor:
        """float[V, D]: the visual sequence of a question that has come to the end of its video."""
        return self.projector.end(course.tokens)

    @property
    def _projects_first(self) -> bool:
        return self.merger.space == "language"

    def _run(self, encode: Callable[[], Tensor], shares: list[Share], state: State) -> tuple[list[Tensor], State]:
        """One chunk, recomputed in the backward pass where activations of all its patches would otherwise be stored.

        Args:
            encode: computes its features, float[n, P, Dv].
            shares: of the videos in it, in their order.
            state: of the first video, where an earlier chunk has begun with it.

        Returns:
            The tokens for each question of each share, float[., D]; and the state of the last video.
        """

        def distil(*carries: Tensor | None) -> tuple[list[Tensor], list[Tensor | None], list[Tensor]]:
            patches = self._patches(encode)  # [n, P, Dv or D]
            # A split into one would copy the gradient of the whole chunk.
            parts = patches.split([len(share.span) for share in shares]) if len(shares) > 1 else [patches]
            now, outputs = State(list(carries), state.draws), []
            for share, own in zip(shares, parts, strict=True):
                tokens, now = self._share(own, share, State.first(share.views) if share.span.start == 0 else now)
                outputs += tokens
            return outputs, now.carries, now.draws

        if torch.is_grad_enabled() and self._stores_activations():
            outputs, carries, draws = checkpoint(distil, *state.carries, use_reentrant=False)
        else:
            outputs, carries, draws = distil(*state.carries)
        return outputs, State(carries, draws)

    def _share(self, patches: Tensor, share: Share, state: State) -> tuple[list[Tensor], State]:
        """The tokens of one video's frames of a chunk for each question about it, and what comes after them.

        Random draws start from the state that is given, not from a shared generator, because a recomputation must draw
        again what the first computation drew.

        Args:
            patches: float[n, P, D], in the merger's space.
            share: of the video.
            state: of the video up to here.
        """
        kept, draws, outputs = list(state.carries), [], []
        if self.anchor == BY_NUMBER:
            # One tensor for all questions, whose keyframes differ: the first frames of the video do not.
            kept = [grow(kept[0], patches, max(len(view.keyframes) for view in share.views))] * len(kept)
        for i, (view, part) in enumerate(zip(share.views, share.parts, strict=True)):
            generator = torch.Generator()
            generator.set_state(state.draws[i])
            keyframes, merged = self._distil(patches, part, kept[i], view.query, generator)
            if self.anchor == PRECEDING and len(part.keyframes):
                kept[i] = keyframes[-1:].clone()  # a slice would keep all of them in memory
            outputs.append(self._tokens(keyframes, merged, part))
            draws.append(generator.get_state())
        return outputs, State(kept, draws)

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
        """Split a video's frames of one chunk into keyframes and the rest, and merge the rest.

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
        """Their part of the visual sequence, float[., D], from what :meth:`_distil` returns."""
        if self._projects_first:
            keyframes = self.projector.pool(keyframes)
        else:
            keyframes, merged = self.projector.project_keyframes(keyframes), self.projector.project_merged(merged)
        num_frames = len(part.keyframes) + len(part.rest)
        return interleave(keyframes, merged.to(keyframes.dtype), part.keyframes, num_frames)
