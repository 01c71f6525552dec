"""Random merging: a frame becomes one of its patches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vilamp.interfaces import FrameMerger, check_merger_inputs


class RandomMerger(FrameMerger):
    """One patch of every frame, each equally likely, drawn from the generator: one number a frame."""

    def forward(
        self,
        patches: Tensor,
        anchors: Tensor,
        anchor_of: Tensor,
        query: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :class:`~vilamp.interfaces.FrameMerger`; anchors and query play no part.  Returns float[n, 1, D].

        Raises:
            ValueError: also where ``generator`` is None.
        """
        check_merger_inputs(patches, anchors, anchor_of, query)
        chosen = self._chosen(patches, generator)
        return patches[torch.arange(len(patches), device=patches.device), chosen][:, None]

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
        """1 for the patch that is chosen, float[n, 1, P].

        Raises:
            ValueError: as :meth:`forward`.
        """
        check_merger_inputs(patches, anchors, anchor_of, query)
        chosen = self._chosen(patches, generator)
        return F.one_hot(chosen, patches.shape[1]).float()[:, None]

    def _chosen(self, patches: Tensor, generator: torch.Generator | None) -> Tensor:
        """int64[n], a patch for each frame."""
        if generator is None:
            raise ValueError("merger=random needs a generator, got None")
        num_frames, num_patches, _ = patches.shape
        draws = torch.rand(num_frames, generator=generator)
        # The product of the greatest draw below 1 can round up to the number of patches.
        return (draws * num_patches).long().clamp(max=num_patches - 1).to(patches.device)
