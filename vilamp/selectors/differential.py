"""Differential keyframe selection (DKS): the most relevant frames that do not repeat each other.

Only the similarities with frames already taken are ever computed.  Most frames that repeat a keyframe stand around it
in time, so its shot is struck out where it lies, which is cheaper than fetching the frames in order of relevance.
Where shots do not tell enough, frames are walked from the most relevant down, in blocks.  Extra memory is a block of
frames and the K taken ones, whatever the length of the video; a matrix of all pairs never exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import groupby, pairwise

import torch
from torch import Tensor

from vilamp.errors import ConfigError
from vilamp.interfaces import FrameSelector, Selection, check_finite, check_selector_inputs, frame_relevance

BLOCK = 512
"""Candidates that are fetched and compared with the taken frames at a time."""
GROWTH = 8
"""Where the best candidates were not enough, how many times more of those left come next."""
SAMPLE = 256
"""Frames at equal steps that tell how far a shot reaches."""
SHOT = 1024
"""Frames of a shot that are compared at a time."""
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
        check_selector_inputs(frames, query, num_keyframes, timestamps, finite_frames=False)
        relevance = frame_relevance(frames, query)
        if not bool(relevance.isfinite().all()):  # as it is for every frame that is not finite
            check_finite(frames=frames)
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
    walk = _Walk(frames, relevance, min(num_keyframes, len(frames)), tau)
    count = 2 * num_keyframes
    walk.leap()
    while not walk.done:
        candidates = _best(walk.left, count)
        walk.through(candidates)
        if len(candidates) < count:  # all that were left
            break
        walk.leap()
        count *= GROWTH
    return torch.tensor(walk.picks, dtype=torch.int64, device=relevance.device)


def _best(relevance: Tensor, count: int) -> Tensor:
    """int64[M], M <= ``count``: the best candidates, from the best to the worst; of equals the earlier first.

    A few are found without sorting all, which takes longer.
    """
    wanted = relevance > NEVER
    if count < len(relevance):
        wanted &= relevance >= relevance.topk(count, sorted=False).values.amin()  # with all that equal the last
    candidates = wanted.nonzero().squeeze(1)
    return candidates[relevance[candidates].argsort(descending=True, stable=True)][:count]


class _Walk:
    """Alg. 1 under way.

    Attributes:
        left: float[N], the relevance of each frame, :data:`NEVER` of one that is no longer a candidate.
        picks: the frames taken so far, in order.
    """

    def __init__(self, frames: Tensor, relevance: Tensor, num_keyframes: int, tau: float) -> None:
        self.frames, self.num_keyframes, self.tau = frames, num_keyframes, tau
        self.left = relevance.clone()
        self.picks: list[int] = []
        dtype = torch.promote_types(frames.dtype, torch.float32)
        self._taken = frames.new_empty(num_keyframes, frames.shape[1], dtype=dtype)  # their rows
        self._struck_out: set[int] = set()  # those whose shots were, by their place in ``picks``
        self._comparisons = 2 * len(frames)  # that striking out may still make
        self._step = -(-len(frames) // SAMPLE)

    @property
    def done(self) -> bool:
        """Whether K frames are taken."""
        return len(self.picks) == self.num_keyframes

    @cached_property
    def _sample(self) -> Tensor:
        return self.frames[:: self._step].to(self._taken.dtype)

    @cached_property
    def _block(self) -> Tensor:
        """Room for the rows of a block; one for all, because new memory costs more than what is done in it."""
        return self.frames.new_empty(min(BLOCK, len(self.frames)), self.frames.shape[1])

    def leap(self) -> None:
        """Take the best frame left, strike out its shot, and so on.

        Where a keyframe turns out to have no shot, those after it are looked at only when the best frame left repeats
        one of them.  It ends where no frame is left, or where the best one repeats a frame whose shot was struck out
        before: then shots do not tell enough.
        """
        have_shots = True
        while not self.done:
            best = self.left.max(0)  # of equals the first
            frame = int(best.indices)
            if float(best.values) == NEVER:
                return
            row = self.frames[frame].to(self._taken.dtype)
            repeats = (self._taken[: len(self.picks)] @ row > self.tau).tolist()
            if True not in repeats:
                self._take(frame, row)
                if have_shots:
                    have_shots = self._strike_out(len(self.picks) - 1)
            elif (first := repeats.index(True)) in self._struck_out:
                return
            else:
                have_shots = self._strike_out(first)

    def through(self, candidates: Tensor) -> None:
        """Take from ``candidates``, int64[M] from the best to the worst, until there are K."""
        self.left.index_fill_(0, candidates, NEVER)
        for block in candidates.split(BLOCK):
            rows = torch.index_select(self.frames, 0, block, out=self._block[: len(block)]).to(self._taken.dtype)
            free = (self._taken[: len(self.picks)] @ rows.T <= self.tau).all(0)
            while len(first := free.nonzero()[:1, 0]):
                best = int(first)
                row = rows[best]
                self._take(int(block[best]), row)
                if self.done:
                    return
                block, rows = block[best + 1 :], rows[best + 1 :]  # what stands before is taken or repeats a taken one
                free = free[best + 1 :] & (rows @ row <= self.tau)

    def _take(self, frame: int, row: Tensor) -> None:
        self._taken[len(self.picks)] = row
        self.picks.append(frame)
        self.left[frame] = NEVER

    def _strike_out(self, place: int) -> bool:
        """Strike out the frames that repeat a taken one, wherever frames of the sample in a row do; whether any does.

        A frame may repeat several taken ones, which is why the comparisons of all calls together are limited.
        """
        self._struck_out.add(place)
        row = self._taken[place]
        runs = list(_runs((self._sample @ row > self.tau).tolist()))
        for run in runs:
            start, stop = max(0, (run.start - 1) * self._step + 1), min(run.stop * self._step, len(self.frames))
            self._comparisons -= stop - start
            if self._comparisons >= 0:
                for block in range(start, stop, SHOT):
                    shot = slice(block, min(block + SHOT, stop))
                    self.left[shot].masked_fill_(self.frames[shot].to(row.dtype) @ row > self.tau, NEVER)
        return bool(runs)


def _runs(flags: list[bool]) -> Iterator[slice]:
    """Where two or more true ones stand in a row."""
    stop = 0
    for flag, equal in groupby(flags):
        start, stop = stop, stop + len(list(equal))
        if flag and stop - start > 1:
            yield slice(start, stop)


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
