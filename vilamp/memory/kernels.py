"""What replaces functions while a run is counted: kernels that fake tensors do not know, and loops that repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vilamp.mergers import _in_blocks


@contextmanager
def fused_kernels(*, gpu: bool) -> Iterator[None]:
    """Attention by a fused kernel, as GPUs and CPUs compute it; fake tensors would get the matrix of all weights.

    The functions are replaced by name, because a TorchFunctionMode is off while backward computes layers again.

    Args:
        gpu: also take layer norms in float32 under autocast, and what attention allocates in its backward pass, which
            CUDA does and a CPU does not.
    """
    attention, norm = F.scaled_dot_product_attention, F.layer_norm

    def layer_norm(values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            values, *args = [a.float() if isinstance(a, Tensor) else a for a in (values, *args)]  # type: ignore[assignment]
        return norm(values, *args, **kwargs)

    def fused(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,  # neither kernel makes copies of the heads that queries share
    ) -> Tensor:
        if gpu:
            query = _GpuBackward.apply(query, key)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]

    F.scaled_dot_product_attention = fused
    if gpu:
        F.layer_norm = layer_norm  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention, F.layer_norm = attention, norm


class _GpuBackward(torch.autograd.Function):
    """The identity of the queries, whose backward pass takes what FlashAttention's takes beside the gradients.

    These are the queries' gradient in float32, in which blocks are added up, and, where queries share keys, the
    gradients of keys and values for each of them.  They are taken while the gradients are alive, as there.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor) -> Tensor:
        ctx.copies = 2 if query.shape[1] != key.shape[1] else 0
        ctx.keys = key.shape[2]
        return query.view_as(query)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        batch, heads, _, width = gradient.shape
        scratch = [torch.empty_like(gradient, dtype=torch.float32)]
        scratch += [gradient.new_empty(batch, heads, ctx.keys, width) for _ in range(ctx.copies)]
        del scratch
        return gradient, None


@contextmanager
def few_blocks() -> Iterator[None]:
    """Let :func:`vilamp.mergers._in_blocks.merge_in_blocks` compute two blocks of each kind and pass over the others.

    Blocks of the same size and number of anchors take the same memory, beside which only the block before them is
    alive; the tokens and gradients of all of them are made before the first.
    """
    blocks = _in_blocks._blocks

    def chosen(patches: Tensor, anchor_of: Tensor, numbers: int) -> Iterator[Any]:
        seen: Counter[tuple[int, int]] = Counter()
        for block in blocks(patches, anchor_of, numbers):
            kind = (sum(length for _, length in block.runs), len(block.anchors))
            seen[kind] += 1
            if seen[kind] <= 2:
                yield block

    _in_blocks._blocks = chosen
    try:
        yield
    finally:
        _in_blocks._blocks = blocks
