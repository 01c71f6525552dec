"""Mean pooling: a frame becomes the mean of its patches."""

from __future__ import annotations

import torch
from torch import Tensor

from vilamp.interfaces import FrameMerger, check_merger_inputs


class UniformMerger(FrameMerger):
    """The plain mean over the patches of a frame."""

    def forward(
        self,
        patches: Tensor,
        anchors: Tensor,
        anchor_of: Tensor,
        query: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :class:`~vilamp.interfaces.FrameMerger`; anchors and query play no part.  Returns float[n, 1, D]."""
        check_merger_inputs(patches, anchors, anchor_of, query)
        return patches.mean(dim=1, keepdim=True)

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
        """The same for every patch, float[n, 1, P]."""
        check_merger_inputs(patches, anchors, anchor_of, query)
        num_frames, num_patches, _ = patches.shape
        return patches.new_full((num_frames, 1, num_patches), 1 / num_patches, dtype=torch.float32)
