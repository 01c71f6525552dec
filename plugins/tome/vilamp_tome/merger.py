"""A merger in the manner of Token Merging (Bolya et al., ICLR 2023, arXiv 2210.09461), written from its description.

Shapes: n frames, t tokens of a frame at the moment, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vilamp.errors import ConfigError
from vilamp.interfaces import FrameMerger, check_merger_inputs


class TokenMerging(FrameMerger):
    """Averages the most similar patches of a frame, round by round, until ``tokens_per_frame`` are left.

    A token is the mean of all patches that went into it, so the tokens weighted by their sizes keep the sum of the
    frame.  Neither the question nor the anchors are looked at, and there is nothing to learn.  One chunk of n frames
    takes O(n P^2 / 4) memory for the similarities of the first round.

    Args:
        tokens_per_frame: T >= 1.
        share_per_round: at most this share of the tokens disappears in one round, 0..0.5.  Small shares merge only what
            is truly alike, and so keep a small object apart from its background for longer; they take more rounds.

    Raises:
        ConfigError: a value out of its range.
    """

    def __init__(self, tokens_per_frame: int = 4, share_per_round: float = 0.25) -> None:
        super().__init__()
        if tokens_per_frame < 1:
            raise ConfigError(f"merger.tokens_per_frame must be at least 1, got {tokens_per_frame}")
        if not 0 < share_per_round <= 0.5:
            raise ConfigError(f"merger.share_per_round must be above 0 and at most 0.5, got {share_per_round}")
        self.tokens_per_frame = tokens_per_frame
        self.share_per_round = share_per_round

    def forward(
        self,
        patches: Tensor,
        anchors: Tensor,
        anchor_of: Tensor,
        query: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """float[n, P, D] -> float[n, T, D], in the order of the patches that took the others in.

        Raises:
            ValueError: as in :meth:`vilamp.interfaces.FrameMerger.forward`.
            ConfigError: fewer patches than tokens.
        """
        check_merger_inputs(patches, anchors, anchor_of, query)
        if patches.shape[1] < self.tokens_per_frame:
            raise ConfigError(
                f"a frame has {patches.shape[1]} patches, too few for {self.tokens_per_frame} tokens; "
                f"set merger.tokens_per_frame to {patches.shape[1]} or less"
            )
        tokens = patches.float()  # [n, t, D], t = P at first
        sizes = tokens.new_ones(tokens.shape[:2])  # [n, t]
        with torch.autocast(patches.device.type, enabled=False):  # a rounded similarity would merge other patches
            while (surplus := tokens.shape[1] - self.tokens_per_frame) > 0:
                most = max(1, int(tokens.shape[1] * self.share_per_round))
                tokens, sizes = _merge_once(tokens, sizes, min(surplus, most))
        return tokens.to(patches.dtype)


def _merge_once(tokens: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """One round of bipartite soft matching: ``count`` tokens disappear into others.

    Every second token is a giver, the others are takers.  Each giver looks for the taker most like it, and the
    ``count`` most similar pairs are merged.

    Args:
        tokens: float[n, t, D].
        sizes: float[n, t], how many patches each token is the mean of.
        count: at most half of t.

    Returns:
        float[n, t', D] and float[n, t'] with t' = t - count, in the order of the tokens that are left.
    """
    givers, takers = tokens[:, 0::2], tokens[:, 1::2]  # [n, a, D], [n, b, D]
    giver_sizes, taker_sizes = sizes[:, 0::2], sizes[:, 1::2]  # [n, a], [n, b]
    a, b = givers.shape[1], takers.shape[1]
    with torch.no_grad():  # who is merged with whom is a choice; only the means have a gradient
        similarity = F.normalize(givers, dim=-1) @ F.normalize(takers, dim=-1).transpose(1, 2)  # [n, a, b]
        likeness, taker = similarity.max(dim=-1)  # [n, a]
        ranked = likeness.argsort(dim=1, descending=True, stable=True)  # [n, a]
        given = torch.zeros_like(giver_sizes).scatter_(1, ranked[:, :count], 1.0)  # [n, a], 1 where merged
        # Summed as a product, and not by scatter_add, which on a GPU adds in an order that changes from run to run.
        gifts = torch.zeros_like(similarity).scatter_(2, taker.unsqueeze(2), (given * giver_sizes).unsqueeze(2))
        gone = torch.stack([given, torch.zeros_like(given)], dim=2).flatten(1)[:, : a + b]  # [n, t], in token order
        left = gone.argsort(dim=1, stable=True)[:, : a + b - count]  # [n, t'], places in token order
        place = left // 2 + (left % 2) * a  # [n, t'], the same places in givers followed by takers
        new_sizes = taker_sizes + gifts.sum(dim=1)  # [n, b]
    sums = takers * taker_sizes.unsqueeze(2) + gifts.transpose(1, 2) @ givers  # [n, b, D]
    candidates = torch.cat([givers, sums / new_sizes.unsqueeze(2)], dim=1)  # [n, a + b, D]
    return (
        candidates.gather(1, place.unsqueeze(2).expand(-1, -1, tokens.shape[2])),
        torch.cat([giver_sizes, new_sizes], dim=1).gather(1, place),
    )
