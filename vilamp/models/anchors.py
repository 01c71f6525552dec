"""What a merged frame is compared with: two rules, as index arithmetic over one chunk.

Legend: n frames of a chunk, m of them to be merged, k keyframes; P patches, D width of the merger's space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PRECEDING = "preceding"
"""The nearest keyframe before the frame (ViLaMP, Eq. 7); none before the first one."""
BY_NUMBER = "by_number"
"""As the published weights were trained: behind the j-th keyframe, j = 0, 1, ..., all frames are compared with frame
number j of the video, and before the first keyframe each is compared with itself."""
RULES = (PRECEDING, BY_NUMBER)


@dataclass(frozen=True)
class Part:
    """One chunk as one question sees it, on the host.

    Attributes:
        keyframes: int64[k], rows of the chunk.
        rest: int64[m], the other rows.
        before: how many keyframes stand in earlier chunks.
    """

    keyframes: Tensor
    rest: Tensor
    before: int

    @classmethod
    def of(cls, keyframes: Tensor, start: int, stop: int) -> Part:
        """Frames start..stop-1 of a video with keyframes int64[K], ascending."""
        before, up_to = torch.searchsorted(keyframes, torch.tensor([start, stop])).tolist()
        inside = keyframes[before:up_to] - start
        is_rest = torch.ones(stop - start, dtype=torch.bool)
        is_rest[inside] = False
        return cls(inside, is_rest.nonzero().squeeze(1), before)

    def preceding(self) -> Tensor:
        """int64[m]: the number j of the nearest keyframe before each frame of ``rest``, -1 where there is none."""
        return self.before - 1 + torch.searchsorted(self.keyframes, self.rest)


def preceding_keyframes(part: Part, keyframe_patches: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
    """The anchors by the rule :data:`PRECEDING`.

    Args:
        part: of the chunk.
        keyframe_patches: float[k, P, D].
        last: float[1, P, D], the last keyframe of earlier chunks; None where ``part.before`` is 0.

    Returns:
        float[A, P, D] and int64[m], as :meth:`vilamp.interfaces.FrameMerger.forward` takes them.
    """
    if last is None:
        return keyframe_patches, part.preceding()
    return torch.cat([last, keyframe_patches]), part.preceding() - (part.before - 1)


def frames_by_number(part: Part, to_merge: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """The anchors by the rule :data:`BY_NUMBER`.

    The j-th keyframe is never earlier than frame j, so frame j has always been seen.  Frames are copied only in the one
    chunk that holds the first keyframe.

    Args:
        part: of the chunk.
        to_merge: float[m, P, D], the frames of ``part.rest``.
        first: float[c, P, D], the first frames of the video as far as they have been seen, this chunk included, c >= j
            for every keyframe so far; None where there is none.

    Returns:
        float[A, P, D] and int64[m], as :meth:`vilamp.interfaces.FrameMerger.forward` takes them.
    """
    numbers = part.preceding()
    alone = int((numbers < 0).sum())  # time is ordered: these are the first rows
    if first is None or alone == len(numbers):
        return to_merge, torch.arange(len(numbers))
    lowest, highest = int(numbers[alone]), int(numbers[-1])
    used = first[lowest : highest + 1]
    if not alone:
        return used, numbers - lowest
    anchor_of = torch.cat([torch.arange(alone), numbers[alone:] - lowest + alone])
    return torch.cat([to_merge[:alone], used]), anchor_of


def grow(first: Tensor | None, patches: Tensor, wanted: int) -> Tensor | None:
    """The first ``wanted`` frames of a video, as far as they have been seen: ``first``, then those of this chunk."""
    missing = wanted - (0 if first is None else len(first))
    if missing <= 0:
        return first
    new = patches[:missing].clone()  # a slice would keep the whole chunk in memory
    return new if first is None else torch.cat([first, new])
