"""Differential keyframe selection (DKS): the most relevant frames that do not repeat each other.

Only the similarities with frames already taken are ever computed, and only when a candidate comes up: the candidates
are walked in blocks from the most relevant down, so the walk ends with the K-th keyframe, and a matrix of all pairs
never exists.  Extra memory is a block of frames and the K taken ones, whatever the length of the video.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from vilamp.errors import ConfigError
from vilamp.interfaces import FrameSelector, Selection, check_selector_inputs, frame_relevance

BLOCK = 512
"""Candidates that are fetched and compared with the taken frames at a time."""
HEAD = 32
"""Candidates of a block that are compared with each other at a time."""


class DifferentialSelector(FrameSelector):
    """DKS (ViLaMP, Alg. 1, Eq. 2-4).

    Frames are tried from the most relevant to the least (of equals the earlier first).  One is taken unless its cosine
    with a frame already taken is greater than ``tau``, until K are taken.  At exactly ``tau`` the published
    implementation takes a frame and the paper's text does not; this one takes it.

    Args:
        tau: the redundancy that a keyframe may have with another, a cosine.
        relevance_floor: frames less relevant than this are not taken, so there may be no keyframe at all; None for the
            paper's method, 0.2 in the published configuration.
        fill_up: fill the places that are left as :func:`fill_gaps` does.

    Raises:
        ConfigError: a value that is not a cosine.
    """

    def __init__(self, tau: float = 0.85, relevance_floor: float | None = None, fill_up: bool = False) -> None:
        super().__init__()
        for name, value in (("tau", tau), ("relevance_floor", relevance_floor)):
            if value is not None and not -1.0 <= value <= 1.0:
                raise ConfigError(f"selector.{name} is a cosine and must lie in -1..1, got {value}")
        self.tau = tau
        self.relevance_floor = relevance_floor
        self.fill_up = fill_up

    @torch.no_grad()
    def forward(
        self,
        frames: Tensor,
        query: Tensor,
        num_keyframes: int,
        *,
        timestamps: Tensor,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """See :class:`~vilamp.interfaces.FrameSelector`; draws nothing, ``timestamps`` play no part."""
        check_selector_inputs(frames, query, num_keyframes, timestamps)
        relevance = frame_relevance(frames, query)
        order = relevance.argsort(descending=True, stable=True)
        if self.relevance_floor is not None:
            order = order[: int((relevance >= self.relevance_floor).sum())]
        with torch.autocast(frames.device.type, enabled=False):
            keyframes = greedy_walk(frames, order, num_keyframes, self.tau).sort().values
        if self.fill_up:
            keyframes = fill_gaps(keyframes, len(frames), num_keyframes)
        return Selection(keyframes, relevance)


def greedy_walk(frames: Tensor, order: Tensor, num_keyframes: int, tau: float) -> Tensor:
    """The frames that Alg. 1 takes, in the order in which it takes them.

    Args:
        frames: float[N, Ds], unit rows.
        order: int64[M], the candidates from the best to the worst.
        num_keyframes: K, take no more than this.
        tau: skip a candidate whose cosine with a taken frame is greater.

    Returns:
        int64[k], k <= K.
    """
    num_keyframes = min(num_keyframes, len(order))
    dtype = torch.promote_types(frames.dtype, torch.float32)
    taken = frames.new_empty(num_keyframes, frames.shape[1], dtype=dtype)
    buffer = frames.new_empty(min(BLOCK, len(order)), frames.shape[1])  # one for all blocks: new memory costs more
    picks: list[Tensor] = []
    count = 0
    for block in order.split(BLOCK):
        rows = torch.index_select(frames, 0, block, out=buffer[: len(block)]).to(dtype)  # [B, Ds]
        compared = 0  # rows of `taken` that the candidates of this block have been compared with
        while len(block) and count < num_keyframes:
            if compared < count:
                redundancy = (taken[compared:count] @ rows.T).amax(0)  # Eq. 4; taken frames first: a faster product
                block, rows = _keep(redundancy <= tau, block, rows)
                compared = count
            new = _first_dissimilar(rows[:HEAD], num_keyframes - count, tau)
            taken[count : count + len(new)] = rows[new]
            picks.append(block[new])
            count += len(new)
            block, rows = block[HEAD:], rows[HEAD:]
        if count == num_keyframes:
            break
    return torch.cat([order[:0], *picks])


def _keep(mask: Tensor, *tensors: Tensor) -> list[Tensor]:
    kept = mask.nonzero().squeeze(1)
    return [tensor[kept] for tensor in tensors]


def _first_dissimilar(rows: Tensor, limit: int, tau: float) -> list[int]:
    """Walk through a few candidates that nothing taken before blocks, and take those that do not block each other."""
    similar = (rows @ rows.T > tau).tolist()  # [HEAD, HEAD] at most
    new: list[int] = []
    for candidate, similar_to in enumerate(similar):
        if len(new) < limit and not any(similar_to[other] for other in new):
            new.append(candidate)
    return new


def fill_gaps(keyframes: Tensor, num_frames: int, num_keyframes: int) -> Tensor:
    """Add frames until min(K, N) are selected, as the published implementation does.

    The frames between keyframes form gaps.  One piece length cuts all gaps, and the first frame of every piece but the
    first of its gap would be added; the smallest length is taken that adds no more frames than there are places.  In a
    gap the added frames then stand at equal steps, rounded up.  Places that still remain go to the last unselected
    frames of the video.  So where many gaps are equally long, the additions crowd at the end; that is kept, because
    published weights were trained with it.

    Args:
        keyframes: int64[k], ascending, unique, in 0..N-1; may be empty.
        num_frames: N.
        num_keyframes: K.

    Returns:
        int64[min(K, N)], ascending, unique.
    """
    chosen = set(keyframes.tolist())
    bounds = [-1, *sorted(chosen), num_frames]
    gaps = [(before + 1, after - before - 1) for before, after in pairwise(bounds)]
    places = min(num_keyframes, num_frames) - len(chosen)

    def added(length: int, piece: int) -> int:
        return -(-length // piece) - 1 if length else 0

    low, high = 1, num_frames
    while low < high:
        piece = (low + high) // 2
        if sum(added(length, piece) for _, length in gaps) <= places:
            high = piece
        else:
            low = piece + 1
    for start, length in gaps:
        extra = added(length, low)
        step = -(-length // (extra + 1))
        chosen.update(start + step * i for i in range(1, extra + 1))
    missing = min(num_keyframes, num_frames) - len(chosen)
    rest = (frame for frame in reversed(range(num_frames)) if frame not in chosen)
    chosen.update([frame for _, frame in zip(range(missing), rest, strict=False)])
    return torch.tensor(sorted(chosen), dtype=torch.int64, device=keyframes.device)
