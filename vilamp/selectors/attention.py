"""Relevance alone: the K frames most similar to the question, however alike they are (the paper's "query-guided")."""

from __future__ import annotations

import torch
from torch import Tensor

from vilamp.interfaces import FrameSelector, Selection, check_selector_inputs, frame_relevance


class AttentionSelector(FrameSelector):
    """The K frames of the greatest relevance (ViLaMP, Eq. 2-3); of equals the earlier."""

    def forward(
        self,
        frames: Tensor,
        query: Tensor,
        num_keyframes: int,
        *,
        timestamps: Tensor,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """See :class:`~vilamp.interfaces.FrameSelector`; draws nothing, ``timestamps`` play no part."""
        check_selector_inputs(frames, query, num_keyframes, timestamps)
        relevance = frame_relevance(frames, query)
        keyframes = relevance.argsort(descending=True, stable=True)[:num_keyframes].sort().values
        return Selection(keyframes, relevance)
