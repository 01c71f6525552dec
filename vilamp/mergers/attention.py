"""A learned pool: one latent vector looks at a frame's patches and knows the question (the paper's "Q-Former")."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vilamp.errors import ConfigError
from vilamp.interfaces import FrameMerger, check_merger_inputs


class AttentionMerger(FrameMerger):
    """Cross-attention from one latent, conditioned on the query, to the patches of a frame.

    The latent is a learned vector plus a linear map of the query.  Latent and patches are layer-normalised for the
    attention weights.  The values are a linear map of the patches that starts as the identity, so at the start a token
    is a weighted mean of its patches, of the scale that the projector expects, and training moves it from there.  The
    latent is added to the result, as the residual connection of a transformer block.

    Args:
        num_heads: heads of the attention; must divide ``dim``.
        dim: width of the patches.
        query_dim: width of the query.

    Raises:
        ConfigError: ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, num_heads: int = 4, *, dim: int, query_dim: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(f"merger.num_heads must divide the patches' width {dim}, got {num_heads}")
        self.num_heads = num_heads
        self.latent = nn.Parameter(torch.empty(dim))
        self.query_map = nn.Linear(query_dim, dim, bias=False)
        self.latent_norm = nn.LayerNorm(dim)
        # No bias on the way to the keys: what is added to all keys alike changes no weight, so it would never learn.
        self.patch_norm = nn.LayerNorm(dim, bias=False)
        self.to_query = nn.Linear(dim, dim)
        self.to_key = nn.Linear(dim, dim, bias=False)
        self.to_value = nn.Linear(dim, dim)
        nn.init.normal_(self.latent, std=0.02)
        nn.init.normal_(self.query_map.weight, std=0.02)
        nn.init.eye_(self.to_value.weight)
        nn.init.zeros_(self.to_value.bias)

    def forward(
        self,
        patches: Tensor,
        anchors: Tensor,
        anchor_of: Tensor,
        query: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :class:`~vilamp.interfaces.FrameMerger`; anchors play no part.  Returns float[n, 1, dim].

        Raises:
            ValueError: also where a width is not the one that the merger was built with.
        """
        self._check(patches, anchors, anchor_of, query)
        latent, asked, keys = self._asked(patches, query)
        values = self.to_value(patches.to(self.latent.dtype))
        pooled = F.scaled_dot_product_attention(asked, keys, self._heads(values))
        return (latent + pooled.transpose(1, 2).flatten(2)).to(patches.dtype)  # [n, 1, D]

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
        """The attention, averaged over the heads, float[n, 1, P]."""
        self._check(patches, anchors, anchor_of, query)
        _, asked, keys = self._asked(patches, query)
        logits = asked.float() @ keys.float().mT * asked.shape[-1] ** -0.5  # [n, heads, 1, P]
        return logits.softmax(dim=-1).mean(dim=1)

    def _check(self, *inputs: Tensor) -> None:
        query_dim, dim = self.query_map.in_features, self.query_map.out_features
        check_merger_inputs(*inputs, dim=dim, query_dim=query_dim)

    def _asked(self, patches: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The latent float[D], and what attends to what: float[n, heads, 1, .] and float[n, heads, P, .]."""
        dtype = self.latent.dtype
        latent = self.latent + self.query_map(query.to(dtype))
        keys = self.to_key(self.patch_norm(patches.to(dtype)))
        asked = self.to_query(self.latent_norm(latent)).expand(len(patches), 1, -1)
        return latent, self._heads(asked), self._heads(keys)

    def _heads(self, tokens: Tensor) -> Tensor:
        """float[n, T, D] -> float[n, heads, T, D / heads]."""
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
