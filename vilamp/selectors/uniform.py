"""Uniform selection: evenly spaced frames, whatever the question is."""

from __future__ import annotations

import torch
from torch import Tensor

from vilamp.interfaces import FrameSelector, Selection, check_selector_inputs, frame_relevance


class UniformSelector(FrameSelector):
    """The middle frames of K equal spans of the video: frame floor((2 i + 1) N / 2 K) for i = 0..K-1.

    Spans are counted in frames, which are equally far apart in time as the data layer samples them.
    """

    def forward(
        self,
        frames: Tensor,
        query: Tensor,
        num_keyframes: int,
        *,
        timestamps: Tensor,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """See :class:`~vilamp.interfaces.FrameSelector`; the query only serves the relevance that is returned."""
        check_selector_inputs(frames, query, num_keyframes, timestamps)
        count = min(num_keyframes, len(frames))
        spans = torch.arange(count, device=frames.device)
        keyframes = (2 * spans + 1) * len(frames) // (2 * count)  # integers, so exact at any length
        return Selection(keyframes, frame_relevance(frames, query))
