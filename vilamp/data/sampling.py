"""Which frames of a video are read: arithmetic on timestamps, without a video."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-6
"""Seconds by which equal times may differ: above the error of float64, far below the length of any frame."""


def plan_frames(starts: np.ndarray, end: float, fps: float, max_frames: int | None = None) -> np.ndarray:
    """The frames on display at 0, 1/fps, 2/fps ... seconds after the first frame, each at most once.

    A frame is on display from its start until the next one's.  Where ``fps`` is above the video's own rate, or a frame
    stands still for long, several of those times show the same frame: it is taken once, so no frame is ever repeated.

    Args:
        starts: float64[F], ascending, seconds from the first frame, so ``starts[0] == 0``.
        end: when the last frame goes, seconds from the first frame; ``end >= starts[-1]``.
        fps: frames a second to take.
        max_frames: where more would be taken, so many of them, evenly spread over all of them; None sets no limit.

    Returns:
        int64[n] indices into ``starts``, ascending and unique, 1 <= n <= F.

    Raises:
        ValueError: no frames, times out of order, or a rate or limit that is not positive.
    """
    if starts.ndim != 1 or len(starts) == 0:
        raise ValueError(f"starts must be float64[F] with F >= 1, got shape {list(starts.shape)}")
    if starts[0] != 0 or bool((np.diff(starts) < 0).any()) or end < starts[-1]:
        raise ValueError(f"starts must ascend from 0 to at most end = {end}, got {starts[0]} to {starts[-1]}")
    if fps <= 0 or not np.isfinite(fps):
        raise ValueError(f"fps must be positive, got {fps}")
    # Frame f is on display at k / fps for the whole numbers k from first[f] to first[f + 1] - 1.  The times themselves
    # are never written out: a damaged timestamp can make a video a million years long.
    first = np.maximum(np.ceil((np.append(starts, end) - ROUNDING) * fps), 0.0)
    shown = np.flatnonzero(first[:-1] < first[1:])
    if len(shown) == 0:  # too short for a rounding error, but the first frame is always one
        shown = np.array([0])
    if max_frames is not None and len(shown) > max_frames:
        shown = shown[spread(len(shown), max_frames)]
    return shown.astype(np.int64)


def asked_times(starts: np.ndarray, indices: np.ndarray, fps: float) -> np.ndarray:
    """float64[n]: for each frame that :func:`plan_frames` chose the first time k / fps at which it is on display.

    Where rounding puts that time before the frame's own start it is the start, so that looking the times up among the
    starts gives the same frames.
    """
    starts = starts[indices]
    return np.maximum(np.maximum(np.ceil((starts - ROUNDING) * fps), 0.0) / fps, starts)


def spread(total: int, count: int) -> np.ndarray:
    """The middles of ``count`` equal stretches of 0..total-1.

    Returns:
        int64[count], ascending and unique.

    Raises:
        ValueError: unless 1 <= count <= total.
    """
    if not 1 <= count <= total:
        raise ValueError(f"count must be 1 to {total}, got {count}")
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // (2 * count)
