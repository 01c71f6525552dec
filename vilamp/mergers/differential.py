"""Differential feature merging (DFM): the weighted mean of a frame's patches, favouring what is relevant and new."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vilamp.errors import ConfigError
from vilamp.interfaces import FrameMerger, check_finite, check_merger_inputs
from vilamp.mergers._in_blocks import Prepare, Runs, for_each_block, merge_in_blocks

EPSILON = 1e-8
"""The shortest length that a vector has in a cosine of the release.

In the paper's form a vector shorter than this has no direction: its cosine with anything is 0, and no gradient flows
through it.
"""

Maps = Literal["one", "four"]
Space = Literal["vision", "language"]

Logits = Callable[..., Tensor]
"""(features float[b, P, D], runs, *shared) -> float[b, P], which a softmax makes weights of."""


class DifferentialMerger(FrameMerger):
    """DFM (ViLaMP, Eq. 5-7 and 9-10), in the form of the paper or in that of the authors' release.

    For patch m of frame n, with the query q and the anchor k, the nearest keyframe before n::

        relevance   R = cos(p_n^m, q)                                        Eq. 6
        redundancy  T = cos(p_n^m, p_k^m), 0 where no keyframe precedes      Eq. 7
        weight      w = softmax over m of (R - lambda T) / alpha             Eq. 5, 9
        token       t = sum over m of w p_n^m                                Eq. 10

    The cosine of Eq. 6 needs q in the space of the patches, while the scorer's query lives in the scorer's own, mostly
    of another width; the paper leaves open how it gets from one to the other.  With ``maps="one"`` a linear map without
    bias, ``query_map``, is learned with the rest of the model.  It starts as the identity, or as a random orthogonal
    map where widths differ.

    With ``maps="four"``, as in the release, each side of both cosines has a learned linear map with bias::

        R = cos(patch_query_map(p_n^m), query_map(q))
        T = cos(patch_anchor_map(p_n^m), anchor_map(p_k^m))

    and the token is the weighted mean of the patches themselves.  The release also has alpha learned, and merges in the
    space of the language model.  Nothing keeps a learned alpha positive; below 0 the least salient patches weigh most.

    Everything is computed in at least float32, whatever the patches are and also under autocast: with alpha = 0.01 the
    softmax magnifies a cosine's rounding error a hundredfold.

    Args:
        lambda_: weight of redundancy against relevance, >= 0.
        alpha: temperature of the softmax, > 0.
        maps: "one" or "four" learned maps, see above.
        learn_alpha: whether alpha is a parameter, which starts at ``alpha``.
        space: what the patches are, see :class:`~vilamp.interfaces.FrameMerger`.
        dim: width of the patches.
        query_dim: width of the query.

    Raises:
        ConfigError: lambda_ or alpha out of range, or maps or space none of those above.
    """

    def __init__(
        self,
        lambda_: float = 1.0,
        alpha: float = 0.01,
        maps: Maps = "one",
        learn_alpha: bool = False,
        space: Space = "vision",
        *,
        dim: int,
        query_dim: int,
    ) -> None:
        super().__init__()
        if not (math.isfinite(lambda_) and lambda_ >= 0):
            raise ConfigError(f"merger.lambda_ must be a number >= 0, got {lambda_}")
        if not (math.isfinite(alpha) and alpha > 0):
            raise ConfigError(f"merger.alpha must be a number > 0, got {alpha}")
        for name, value, known in (("maps", maps, Maps), ("space", space, Space)):
            if value not in get_args(known):
                raise ConfigError(f"merger.{name} must be one of {', '.join(get_args(known))}, got {value}")
        self.lambda_ = lambda_
        self.alpha = nn.Parameter(torch.tensor(alpha)) if learn_alpha else alpha
        self.maps = maps
        self.space = space
        self.unit_query = maps == "one"  # behind a bias the length of the query counts, and the release keeps it
        self.query_map = nn.Linear(query_dim, dim, bias=maps == "four")
        if maps == "four":
            self.patch_query_map = nn.Linear(dim, dim)
            self.patch_anchor_map = nn.Linear(dim, dim)
            self.anchor_map = nn.Linear(dim, dim)
        elif dim == query_dim:
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

        ``anchor_of`` may name any anchor for any frame: the keyframe that precedes it is the caller's choice.

        Raises:
            ValueError: also where a width is not the one that the merger was built with.
        """
        self._check(patches, anchors, anchor_of, query, finite_patches=False)
        with torch.autocast(patches.device.type, enabled=False):
            direction, logits, shared = self._form(patches, query)
            tokens = merge_in_blocks(direction, partial(_mean, logits), patches, anchors, anchor_of, *shared)
        # A patch with a NaN or an infinity makes its frame's token NaN or infinite, whatever its weight.  To look for
        # them here spares one pass over the patches.
        if not bool(tokens.detach().sum().isfinite()):
            check_finite(patches=patches)
        return tokens[:, None]

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
        """The w of Eq. 9, float[n, 1, P] in at least float32."""
        self._check(patches, anchors, anchor_of, query)
        with torch.autocast(patches.device.type, enabled=False):
            direction, logits, shared = self._form(patches, query)
            weights = shared[0].new_empty(patches.shape[:2])
            for_each_block(direction, partial(_softmax, logits), weights, patches, anchors, anchor_of, *shared)
        return weights[:, None]

    def _check(self, *inputs: Tensor, finite_patches: bool = True) -> None:
        in_features, out_features = self.query_map.in_features, self.query_map.out_features
        check_merger_inputs(*inputs, dim=out_features, query_dim=in_features, finite_patches=finite_patches)

    def _form(self, patches: Tensor, query: Tensor) -> tuple[Prepare, Logits, list[Tensor]]:
        """What prepares an anchor, what gives the logits of a block of frames, and the tensors that both use."""
        dtype = torch.promote_types(patches.dtype, torch.float32)
        asked = self.query_map(query.to(self.query_map.weight.dtype)).to(dtype)  # [D]
        alpha = torch.as_tensor(self.alpha, dtype=dtype, device=patches.device)
        if self.maps == "one":
            return self._paper_direction, _paper_logits, [asked * _inverse_norm(asked) / alpha, alpha]
        maps = (self.patch_query_map, self.patch_anchor_map, self.anchor_map)
        weights = (value.to(dtype) for linear in maps for value in (linear.weight, linear.bias))
        return self._release_direction, self._release_logits, [asked * _floored_inverse_norm(asked), alpha, *weights]

    def _paper_direction(self, anchor: Tensor, query: Tensor, alpha: Tensor) -> Tensor:
        """float[P, D]: (q - lambda k) / alpha, q and k in unit vectors.

        Both cosines share the patch, so (R - lambda T) / alpha is the product of p with what the frames of one anchor
        have in common, over the norm of p.

        Args:
            anchor: float[P, D].
            query: float[D], mapped, of norm 1 / alpha.
            alpha: float[].
        """
        anchor = anchor.to(query.dtype)
        return torch.addcmul(query, anchor, (_inverse_norm(anchor) / alpha)[:, None], value=-self.lambda_)

    def _release_direction(self, anchor: Tensor, query: Tensor, alpha: Tensor, *maps: Tensor) -> Tensor:
        """float[P, D]: the mapped patches of the anchor, of unit norm."""
        mapped = F.linear(anchor.to(query.dtype), *maps[4:])
        return mapped * _floored_inverse_norm(mapped)[:, None]

    def _release_logits(self, features: Tensor, runs: Runs, query: Tensor, alpha: Tensor, *maps: Tensor) -> Tensor:
        """(R - lambda T) / alpha, float[b, P], of a block of frames.

        Args:
            features: float[b, P, D].
            runs: of :meth:`_release_direction`.
            query: float[D], mapped, of unit norm.
            alpha: float[].
            maps: weight and bias of patch_query_map, patch_anchor_map and anchor_map.
        """
        mapped = F.linear(features, *maps[:2])  # [b, P, D]
        saliency = (mapped @ query) * _floored_inverse_norm(mapped)
        del mapped  # where no gradient needs it, the next takes its memory
        mapped = F.linear(features, *maps[2:4])
        redundancy = _products(mapped, runs, torch.zeros_like(query)) * _floored_inverse_norm(mapped)
        return (saliency - self.lambda_ * redundancy) / alpha


def _paper_logits(features: Tensor, runs: Runs, query: Tensor, alpha: Tensor) -> Tensor:
    """(R - lambda T) / alpha, float[b, P], of a block of frames.

    Args:
        features: float[b, P, D].
        runs: of :meth:`DifferentialMerger._paper_direction`.
        query: float[D], mapped, of norm 1 / alpha.
        alpha: float[].
    """
    return _products(features, runs, query) / _norm(features)


def _mean(logits: Logits, patches: Tensor, runs: Runs, query: Tensor, *others: Tensor) -> Tensor:
    """Tokens float[b, D] of a block of frames: the mean of their patches, weighted."""
    features = patches.to(query.dtype)
    weights = logits(features, runs, query, *others).softmax(dim=-1)
    return torch.einsum("np,npd->nd", weights, features).to(patches.dtype)


def _softmax(logits: Logits, patches: Tensor, runs: Runs, query: Tensor, *others: Tensor) -> Tensor:
    """The weights of a block of frames, float[b, P]."""
    return logits(patches.to(query.dtype), runs, query, *others).softmax(dim=-1)


def _products(features: Tensor, runs: Runs, without: Tensor) -> Tensor:
    """float[b, P]: every patch times the direction that its anchor has in its place.

    Args:
        features: float[b, P, D].
        runs: float[P, D] of their anchor, or None, for how many frames.
        without: float[D], the direction for frames that have no anchor.
    """
    products = [
        # This order reads the run as it lies in memory; "npd,pd->np" takes five times as long.
        run @ without if direction is None else torch.einsum("pd,npd->pn", direction, run).T
        for (direction, _), run in zip(runs, features.split([length for _, length in runs]), strict=True)
    ]
    return products[0] if len(products) == 1 else torch.cat(products)


def _norm(vectors: Tensor) -> Tensor:
    """Of the last dimension, infinite where it is not above EPSILON: over it, a product is 0, and so are gradients."""
    return F.threshold(torch.linalg.vector_norm(vectors, dim=-1), EPSILON, math.inf)


def _inverse_norm(vectors: Tensor) -> Tensor:
    """1 / norm over the last dimension, 0 where the norm is not above EPSILON."""
    return 1 / _norm(vectors)


def _floored_inverse_norm(vectors: Tensor) -> Tensor:
    """1 / norm over the last dimension, of which none counts as less than EPSILON."""
    return 1 / torch.linalg.vector_norm(vectors, dim=-1).clamp_min(EPSILON)
