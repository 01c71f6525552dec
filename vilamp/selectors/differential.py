"""Differential keyframe selection (DKS): the most relevant frames that do not repeat each other.

Only the similarities with frames already taken are ever computed.  The best candidates are walked first; often they are
all that is needed.  If they were nearly all alike, as in a static shot, one pass over the embeddings for each keyframe
strikes out whatever repeats it.  What is left is walked in blocks from the most relevant down, so the walk ends with
the K-th keyframe.  Extra memory is a block of frames and the K taken ones, whatever the length of the video; a matrix
of all pairs never exists.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from vilamp.errors import ConfigError
from vilamp.interfaces import FrameSelector, Selection, check_selector_inputs, frame_relevance

BLOCK = 192
"""Candidates that are fetched and compared with the taken frames at a time."""
HEAD = 32
"""Candidates of a block that are compared with each other at a time."""
SAMPLE = 64
"""Frames that tell whether a pass over all frames would pay."""
PASSES = 3
"""Such passes that cost as much time as fetching all frames and comparing them in the walk, about."""
NEVER = -torch.inf
"""The relevance of a frame that is not, or no longer, a candidate."""


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
            given = value is not None or name == "tau"
            if given and not (isinstance(value, int | float) and -1.0 <= value <= 1.0):
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
        ranking = relevance
        if self.relevance_floor is not None:
            ranking = relevance.masked_fill(relevance < self.relevance_floor, NEVER)
        with torch.autocast(frames.device.type, enabled=False):
            keyframes = greedy_walk(frames, ranking, num_keyframes, self.tau).sort().values
        if self.fill_up:
            keyframes = fill_gaps(keyframes, len(frames), num_keyframes)
        return Selection(keyframes, relevance)


def greedy_walk(frames: Tensor, relevance: Tensor, num_keyframes: int, tau: float) -> Tensor:
    """The frames that Alg. 1 takes, in the order in which it takes them.

    Args:
        frames: float[N, Ds], unit rows.
        relevance: float[N]; a frame whose relevance is :data:`NEVER` is no candidate.
        num_keyframes: K, take no more than this.
        tau: skip a candidate whose cosine with a taken frame is greater.

    Returns:
        int64[k], k <= K.
    """
    walk = _Walk(frames, min(num_keyframes, len(frames)), tau)
    best = _from_the_best(relevance, BLOCK)
    walk.through(best)
    if not walk.done and len(best) == BLOCK:  # fewer would be all that there are
        left = relevance.index_fill(0, best, NEVER)
        walk.strike_out(left)
        walk.through(_from_the_best(left))
    return torch.cat([best[:0], *walk.picks])


def _from_the_best(relevance: Tensor, count: int | None = None) -> Tensor:
    """int64[M]: the candidates, or the ``count`` best of them, from the best to the worst; of equals the earlier first.

    A few are found without sorting all, which would take longer than everything else where a few are enough.
    """
    wanted = relevance > NEVER
    if count is not None and count < len(relevance):
        wanted &= relevance >= relevance.topk(count, sorted=False).values.amin()  # with all that equal the last
    candidates = wanted.nonzero().squeeze(1)
    return candidates[relevance[candidates].argsort(descending=True, stable=True)][:count]


class _Walk:
    """Alg. 1 under way.

    Attributes:
        picks: int64[.] each, the frames taken so far, in order.
    """

    def __init__(self, frames: Tensor, num_keyframes: int, tau: float) -> None:
        self.frames, self.num_keyframes, self.tau = frames, num_keyframes, tau
        dtype = torch.promote_types(frames.dtype, torch.float32)
        self.picks: list[Tensor] = []
        self._taken = frames.new_empty(num_keyframes, frames.shape[1], dtype=dtype)  # their rows
        self._count = 0
        self._struck = 0  # rows of `_taken` that no candidate repeats any more
        self._block = frames.new_empty(min(BLOCK, len(frames)), frames.shape[1])  # one: new memory costs more

    @property
    def done(self) -> bool:
        """Whether K frames are taken."""
        return self._count == self.num_keyframes

    def through(self, candidates: Tensor) -> None:
        """Take from ``candidates``, int64[M] from the best to the worst, until there are K."""
        for block in candidates.split(BLOCK):
            rows = torch.index_select(self.frames, 0, block, out=self._block[: len(block)]).to(self._taken.dtype)
            compared = self._struck  # rows of `_taken` that the candidates of this block have been compared with
            while not self.done:
                if compared < self._count:
                    # Eq. 4; taken frames first: a faster product
                    redundancy = (self._taken[compared : self._count] @ rows.T).amax(0)
                    block, rows = _keep(redundancy <= self.tau, block, rows)
                    compared = self._count
                if not len(block):
                    break
                new = _first_dissimilar(rows[:HEAD], self.num_keyframes - self._count, self.tau)
                self._taken[self._count : self._count + len(new)] = rows[new]
                self.picks.append(block[new])
                self._count += len(new)
                block, rows = block[HEAD:], rows[HEAD:]
            if self.done:
                break

    def strike_out(self, relevance: Tensor) -> None:
        """Set the relevance, float[N], of all frames that repeat a taken one to :data:`NEVER`, if that saves time.

        It takes a pass over all frames for each taken one, where they lie, and saves fetching and comparing those that
        are struck out.  Frames at equal steps tell how many that would be.
        """
        step = -(-len(self.frames) // SAMPLE)
        sample = self.frames[::step].to(self._taken.dtype)
        repeats = (self._taken[: self._count] @ sample.T > self.tau).any(0) & (relevance[::step] > NEVER)
        if self._count < PASSES * float(repeats.float().mean()):
            for row in self._taken[: self._count]:
                relevance.masked_fill_(frame_relevance(self.frames, row) > self.tau, NEVER)
            self._struck = self._count


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
