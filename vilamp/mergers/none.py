"""No merging: the frames between keyframes are dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from vilamp.interfaces import FrameMerger, check_merger_inputs


class NoneMerger(FrameMerger):
    """Zero tokens a frame, so that nothing else need know of a run without merged frames."""

    tokens_per_frame = 0

    def forward(
        self,
        patches: Tensor,
        anchors: Tensor,
        anchor_of: Tensor,
        query: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :class:`~vilamp.interfaces.FrameMerger`.  Returns float[n, 0, D]."""
        check_merger_inputs(patches, anchors, anchor_of, query)
        return patches[:, :0].clone()  # an empty slice alone would keep all patches in memory

    @torch.no_grad()
    def token_weights(
        self,
        patches: Tensor,
        anchors: Tensor,
        anchor_of: Tensor,
        query: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Nothing, float[n, 0, P]."""
        check_merger_inputs(patches, anchors, anchor_of, query)
        return patches.new_empty(len(patches), 0, patches.shape[1])
