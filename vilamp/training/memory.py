"""Peak memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_rss_gib() -> float:
    """The largest resident set since :func:`reset_peak_rss` (Linux) or since the process began (elsewhere), in GiB."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def reset_peak_rss() -> bool:
    """Let the peak start anew from the present resident set; False where the system cannot."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True
