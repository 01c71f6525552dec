"""Merging in blocks of frames: what lies between patches and tokens exists for one block at a time.

In the backward pass too, where each block is computed once more.  So beside its inputs, its tokens and the gradients
that are asked for, a merger needs the memory of one block, however many frames there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vilamp.interfaces import NO_ANCHOR

FORWARD_NUMBERS = 3 * 2**20
"""Patch features of a block, as numbers: 12 MiB in float32, which stays in a processor's cache.

A frame with more of them is a block of its own.
"""

BACKWARD_NUMBERS = 2**20
"""The same in the backward pass, where several tensors of this size are held."""

Runs = Sequence[tuple[Tensor | None, int]]
"""The frames of a block in stretches of the same anchor: what was prepared of it, or None for no anchor; how many."""

Prepare = Callable[..., Tensor]
"""(anchor float[P, D], *shared) -> what all frames of this anchor need of it."""

MergeBlock = Callable[..., Tensor]
"""(patches float[b, P, D], runs, *shared) -> tokens float[b, D], in patches' dtype."""


@dataclass(frozen=True)
class _Block:
    frames: slice | Tensor
    anchors: list[int]  # distinct
    runs: list[tuple[int, int]]  # anchor or NO_ANCHOR, and how many frames

    def prepared(self, anchors: dict[int, Tensor]) -> Runs:
        return [(anchors.get(anchor), length) for anchor, length in self.runs]


def merge_in_blocks(
    prepare: Prepare, merge_block: MergeBlock, patches: Tensor, anchors: Tensor, anchor_of: Tensor, *shared: Tensor
) -> Tensor:
    """Apply ``merge_block`` to all frames, block by block; frames of one anchor come together, whatever their order.

    Both functions run again in the backward pass, so they must be deterministic.  Autocast is off in them if it is off
    around this call.

    Args:
        prepare: what the frames of one anchor share.
        merge_block: computes one block.
        patches: float[n, P, D].
        anchors: float[A, P, D].
        anchor_of: int64[n].
        shared: tensors that all blocks use, passed on to both functions.

    Returns:
        float[n, D].
    """
    tokens = _InBlocks.apply(prepare, merge_block, anchor_of, patches, anchors, *shared)
    assert isinstance(tokens, Tensor)
    return tokens


def for_each_block(
    prepare: Prepare,
    compute: MergeBlock,
    out: Tensor,
    patches: Tensor,
    anchors: Tensor,
    anchor_of: Tensor,
    *shared: Tensor,
) -> Tensor:
    """As :func:`merge_in_blocks`, without gradients and with rows of any width: ``out``, [n, ...], is filled."""
    known: dict[int, Tensor] = {}  # of this block and the last
    for block in _blocks(patches, anchor_of, FORWARD_NUMBERS):
        known = {i: known[i] if i in known else prepare(anchors[i], *shared) for i in block.anchors}
        out[block.frames] = compute(patches[block.frames], block.prepared(known), *shared)
    return out


class _InBlocks(torch.autograd.Function):
    """The loops of both passes.

    Activation checkpointing of each block would do the same but for the memory of gradients: autograd adds up the
    gradient of a slice in a tensor of the size of the whole, or joins those of all slices in a second copy.
    """

    @staticmethod
    def forward(ctx: Any, prepare: Prepare, merge_block: MergeBlock, anchor_of: Tensor, *tensors: Tensor) -> Tensor:
        patches, anchors, *shared = tensors
        ctx.prepare, ctx.merge_block = prepare, merge_block
        ctx.save_for_backward(anchor_of, *tensors)
        tokens = patches.new_empty(patches.shape[0], patches.shape[2])
        return for_each_block(prepare, merge_block, tokens, patches, anchors, anchor_of, *shared)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_tokens: Tensor) -> tuple[Tensor | None, ...]:
        anchor_of, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        patches = tensors[0]
        # Every frame is in one block, but anchors and what is shared are added up, which bfloat16 is too coarse for.
        dtypes = [patches.dtype, *(torch.promote_types(tensor.dtype, torch.float32) for tensor in tensors[1:])]
        grads = [
            torch.zeros_like(tensor, dtype=dtype) if want else None
            for tensor, dtype, want in zip(tensors, dtypes, wanted, strict=True)
        ]
        for block in _blocks(patches, anchor_of, BACKWARD_NUMBERS):
            parts = (block.frames, block.anchors, *(... for _ in tensors[2:]))
            leaves = [
                tensor[part].detach().requires_grad_(want)
                for tensor, part, want in zip(tensors, parts, wanted, strict=True)
            ]
            with torch.enable_grad(), torch.autocast(patches.device.type, enabled=False):
                block_patches, block_anchors, *shared = leaves
                prepared = [ctx.prepare(anchor, *shared) for anchor in block_anchors]
                runs = block.prepared(dict(zip(block.anchors, prepared, strict=True)))
                tokens = ctx.merge_block(block_patches, runs, *shared)
            chosen = [leaf for leaf in leaves if leaf.requires_grad]
            found = iter(torch.autograd.grad(tokens, chosen, grad_tokens[block.frames], allow_unused=True))
            for grad, part, want in zip(grads, parts, wanted, strict=True):
                value = next(found) if want else None
                if grad is not None and value is not None:
                    grad[part] += value
        given = (grad if grad is None else grad.to(tensor.dtype) for grad, tensor in zip(grads, tensors, strict=True))
        return None, None, None, *given


def _blocks(patches: Tensor, anchor_of: Tensor, numbers: int) -> Iterator[_Block]:
    """Cut the frames, in the order of their anchors, into blocks of at most ``numbers`` features.

    Where an anchor has more frames than a block, it is cut into parts of equal size, so that one product does for a
    block; the last of them may share its block with the anchors that follow, as those do that have few frames.
    """
    _, num_patches, dim = patches.shape
    size = max(1, numbers // max(1, num_patches * dim))
    anchor_list = anchor_of.tolist()
    order = None
    if any(anchor > after for anchor, after in pairwise(anchor_list)):
        anchor_list, order = sorted(anchor_list), anchor_of.argsort(stable=True)
    start = 0
    for runs in _packed([(anchor, len(list(run))) for anchor, run in groupby(anchor_list)], size):
        stop = start + sum(length for _, length in runs)
        frames = slice(start, stop) if order is None else order[start:stop]
        yield _Block(frames, [anchor for anchor, _ in runs if anchor != NO_ANCHOR], runs)
        start = stop


def _packed(runs: Iterable[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    """Put runs, each an anchor and how many frames it has, into blocks of at most ``size`` frames."""
    block: list[tuple[int, int]] = []
    room = size
    for anchor, length in runs:
        if length > room and block:
            yield block
            block, room = [], size
        parts = -(-length // size)
        for part in range(parts - 1):
            yield [(anchor, length * (part + 1) // parts - length * part // parts)]
        rest = length - length * (parts - 1) // parts
        block.append((anchor, rest))
        room -= rest
    if block:
        yield block
