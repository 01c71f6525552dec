"""Relevance over time in a terminal: a row of blocks, the keyframes below it, and the seconds below them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCKS = "▁▂▃▄▅▆▇█"
KEYFRAME = "▲"


def sparkline(times: Sequence[float], relevance: Sequence[float] | None, keyframes: Sequence[float], width: int) -> str:
    """Three lines; where several frames fall into one column, the most relevant one is shown.

    Args:
        times: of the N frames, in seconds, ascending.
        relevance: of each frame; None leaves the first line out.
        keyframes: their times.
        width: columns of the terminal.
    """
    columns = max(min(width, len(times)), 1)
    span = max(times[-1] - times[0], 1e-9)

    def column(time: float) -> int:
        return min(int((time - times[0]) / span * columns), columns - 1)

    lines = [] if relevance is None else [_bars([column(time) for time in times], relevance, columns)]
    marks = {column(time) for time in keyframes}
    lines.append("".join(KEYFRAME if i in marks else " " for i in range(columns)).rstrip())
    first, last = f"{times[0]:.0f} s", f"{times[-1]:.0f} s"
    lines.append(f"{first}{last:>{max(columns - len(first), len(last) + 1)}}")
    return "\n".join(lines)


def _bars(column_of: Sequence[int], relevance: Sequence[float], columns: int) -> str:
    highest = np.full(columns, -np.inf)
    np.maximum.at(highest, column_of, relevance)
    for i in range(1, columns):  # no frame falls here: the one before is still on display
        if highest[i] == -np.inf:
            highest[i] = highest[i - 1]
    low, high = min(relevance), max(relevance)
    levels = (highest - low) / max(high - low, 1e-9) * (len(BLOCKS) - 1)
    return "".join(BLOCKS[round(level)] for level in levels)
