"""Adaptive Keyframe Sampling (Tang et al., CVPR 2025, arXiv 2502.21271), written from the paper's description.

Two extremes are reconciled: the K most relevant frames may all show the same moment, and the best frame of each of K
equal parts wastes most of them where only one moment matters.  So every part of the video is *judged*: where the best
frames rise clearly above the mean, they are taken; where not, the part is *split* in half and each half gets half of
the keyframes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vilamp.errors import ConfigError
from vilamp.interfaces import FrameSelector, Selection, check_selector_inputs, frame_relevance


class AdaptiveKeyframes(FrameSelector):
    """Judge and split over time.

    Args:
        threshold: a part keeps its most relevant frames where their mean exceeds the part's mean by this much, on
            relevance scaled to 0..1 over the video.  0 is plain top-K, anything above 1 always splits.
        max_splits: how often a part may be halved; 0 is plain top-K.

    Raises:
        ConfigError: a negative argument.
    """

    def __init__(self, threshold: float = 0.8, max_splits: int = 5) -> None:
        super().__init__()
        if not threshold >= 0:
            raise ConfigError(f"selector.threshold must be 0 or more, got {threshold}")
        if max_splits < 0:
            raise ConfigError(f"selector.max_splits must be 0 or more, got {max_splits}")
        self.threshold = threshold
        self.max_splits = max_splits

    def forward(
        self,
        frames: Tensor,
        query: Tensor,
        num_keyframes: int,
        *,
        timestamps: Tensor,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """Select min(K, N) frames; see :meth:`vilamp.interfaces.FrameSelector.forward` for shapes and errors."""
        check_selector_inputs(frames, query, num_keyframes, timestamps)
        relevance = frame_relevance(frames, query)  # [N]
        # The recursion has at most 2^(max_splits+1) small steps: on the host, after one copy of N numbers.
        scores, times = relevance.cpu(), timestamps.detach().cpu().double()
        low, high = scores.min(), scores.max()
        scores = (scores - low) / (high - low).clamp_min(torch.finfo(scores.dtype).tiny)  # all 0 on a static video
        chosen = self._choose(scores, times, 0, len(scores), min(num_keyframes, len(scores)), self.max_splits)
        keyframes = torch.cat(chosen).sort().values.to(frames.device)
        return Selection(keyframes, relevance)

    def _choose(self, scores: Tensor, times: Tensor, start: int, stop: int, count: int, splits: int) -> list[Tensor]:
        """``count`` frames out of ``start..stop``, count <= stop - start, as a list of index tensors."""
        if count == 0:
            return []
        part = scores[start:stop]
        best = part.argsort(descending=True, stable=True)[:count]  # stable: among equals the earliest
        if count == 1 or splits == 0 or float(part[best].mean() - part.mean()) >= self.threshold:
            return [best + start]
        middle = start + _middle(times[start:stop])
        left = _left_share(count, scores[start:middle], scores[middle:stop])
        return [
            *self._choose(scores, times, start, middle, left, splits - 1),
            *self._choose(scores, times, middle, stop, count - left, splits - 1),
        ]


def _middle(times: Tensor) -> int:
    """The first frame of the second half: by time, so that a gap in the sampling does not shift the halves."""
    centre = (times[0] + times[-1]) / 2
    return int(torch.searchsorted(times.contiguous(), centre, right=True))


def _left_share(count: int, left: Tensor, right: Tensor) -> int:
    """Half of the keyframes; an odd one goes to the more relevant half, and no half gets more than it has frames."""
    odd_one = count % 2 if len(left) and (not len(right) or left.max() >= right.max()) else 0
    share = count // 2 + odd_one
    return min(max(share, count - len(right)), len(left))
