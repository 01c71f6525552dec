"""Random selection: K frames, each set of K equally likely."""

from __future__ import annotations

import torch
from torch import Tensor

from vilamp.interfaces import FrameSelector, Selection, check_selector_inputs, frame_relevance


class RandomSelector(FrameSelector):
    """K of the N frames without replacement, drawn from the generator."""

    def forward(
        self,
        frames: Tensor,
        query: Tensor,
        num_keyframes: int,
        *,
        timestamps: Tensor,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """See :class:`~vilamp.interfaces.FrameSelector`; the query only serves the relevance that is returned.

        Raises:
            ValueError: also where ``generator`` is None.
        """
        check_selector_inputs(frames, query, num_keyframes, timestamps)
        if generator is None:
            raise ValueError("selector=random needs a generator, got None")
        # In float32 two of 10,000 lots would often be equal, which would favour the earlier frame.
        lots = torch.rand(len(frames), generator=generator, dtype=torch.float64)
        keyframes = lots.argsort(stable=True)[:num_keyframes].sort().values
        return Selection(keyframes.to(frames.device), frame_relevance(frames, query))
