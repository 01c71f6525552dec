"""Differential feature merging (DFM): the weighted mean of a frame's patches, favouring what is relevant and new."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vilamp.errors import ConfigError
from vilamp.interfaces import NO_ANCHOR, FrameMerger, check_merger_inputs

EPSILON = 1e-8
"""A vector shorter than this has no direction: its cosine with anything is 0, and no gradient flows through it."""


class DifferentialMerger(FrameMerger):
    """DFM (ViLaMP, Eq. 5-7 and 9-10).

    For patch m of frame n, with the query q and the anchor k, the nearest keyframe before n::

        relevance   R = cos(p_n^m, q)                                        Eq. 6
        redundancy  T = cos(p_n^m, p_k^m), 0 where no keyframe precedes      Eq. 7
        weight      w = softmax over m of (R - lambda T) / alpha             Eq. 5, 9
        token       t = sum over m of w p_n^m                                Eq. 10

    The cosine of Eq. 6 needs q in the space of the patches, while the scorer's query lives in the scorer's own, mostly
    of another width; the paper leaves open how it gets from one to the other.  Here a linear map without bias is
    learned with the rest of the model.  It starts as the identity, or as a random orthogonal map where widths differ.

    Everything is computed in at least float32, whatever the patches are and also under autocast: with alpha = 0.01 the
    softmax magnifies a cosine's rounding error a hundredfold.

    Args:
        lambda_: weight of redundancy against relevance, >= 0.
        alpha: temperature of the softmax, > 0.
        dim: width of the patches.
        query_dim: width of the query.

    Raises:
        ConfigError: lambda_ or alpha out of range.
    """

    def __init__(self, lambda_: float = 1.0, alpha: float = 0.01, *, dim: int, query_dim: int) -> None:
        super().__init__()
        if not (math.isfinite(lambda_) and lambda_ >= 0):
            raise ConfigError(f"merger.lambda_ must be a number >= 0, got {lambda_}")
        if not (math.isfinite(alpha) and alpha > 0):
            raise ConfigError(f"merger.alpha must be a number > 0, got {alpha}")
        self.lambda_ = lambda_
        self.alpha = alpha
        self.query_map = nn.Linear(query_dim, dim, bias=False)
        if dim == query_dim:
            nn.init.eye_(self.query_map.weight)
        else:
            nn.init.orthogonal_(self.query_map.weight)

    def forward(
        self,
        patches: Tensor,
        anchors: Tensor,
        anchor_of: Tensor,
        query: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :class:`~vilamp.interfaces.FrameMerger`; draws nothing.  Returns float[n, 1, dim].

        Raises:
            ValueError: also where a width is not the one that the merger was built with.
        """
        in_features, out_features = self.query_map.in_features, self.query_map.out_features
        check_merger_inputs(patches, anchors, anchor_of, query, dim=out_features, query_dim=in_features)
        dtype = torch.promote_types(patches.dtype, torch.float32)
        with torch.autocast(patches.device.type, enabled=False):
            features = patches.to(dtype)  # [n, P, D]
            saliency = self._saliency(features, anchors.to(dtype), anchor_of, query)  # [n, P]
            weights = (saliency / self.alpha).softmax(dim=-1)  # [n, P]
            tokens = torch.einsum("np,npd->nd", weights, features)  # [n, D]
        return tokens[:, None].to(patches.dtype)

    def _saliency(self, features: Tensor, anchors: Tensor, anchor_of: Tensor, query: Tensor) -> Tensor:
        """float[n, P]: relevance - lambda * redundancy of every patch (Eq. 5).

        Both cosines share the patch, so with unit vectors R - lambda T = p . (q - lambda k): one product with what the
        frames of one anchor have in common.  Anchors are never repeated for every frame.
        """
        mapped = self.query_map(query.to(self.query_map.weight.dtype)).to(features.dtype)  # [D]
        unit_query = mapped * _inverse_norm(mapped)[..., None]
        directions = (unit_query - self.lambda_ * anchors * _inverse_norm(anchors)[..., None]).unbind()  # A of [P, D]
        runs, lengths = anchor_of.unique_consecutive(return_counts=True)
        products = [features.new_zeros(0, features.shape[1])]
        for anchor, run in zip(runs.tolist(), features.split(lengths.tolist()), strict=True):
            if anchor == NO_ANCHOR:
                products.append(run @ unit_query)
            else:
                # This order reads the run as it lies in memory; "npd,pd->np" takes four times as long.
                products.append(torch.einsum("pd,npd->pn", directions[anchor], run).T)
        return torch.cat(products) * _inverse_norm(features)


def _inverse_norm(vectors: Tensor) -> Tensor:
    """1 / norm over the last dimension, 0 where the norm is below EPSILON."""
    norm = torch.linalg.vector_norm(vectors, dim=-1)
    return torch.where(norm > EPSILON, 1 / norm.clamp_min(EPSILON), 0.0)
