"""Peak memory of this process, and of it with the processes that it has started."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import psutil

_STATUS, _CLEAR, _ROLLUP = (Path("/proc/self", name) for name in ("status", "clear_refs", "smaps_rollup"))


def peak_rss_gib() -> float:
    """The largest resident set since :func:`reset_peak_rss` (Linux) or since the process began (elsewhere), in GiB."""
    peak = _sizes(_STATUS).get("VmHWM") if _STATUS.exists() else None
    if peak is not None:
        return peak / 2**30
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def reset_peak_rss() -> bool:
    """Let the peak start anew from the present resident set; False where the system cannot."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def tree_gib() -> float | None:
    """Memory of this process and of all that it has started, in GiB; None where the system does not tell.

    The sum of three parts, of which each counts once what several processes share: their own pages (the anonymous part
    of the proportional set size); the mapped files (libraries) of the process that has most of them; and the files in
    shared memory through which batches travel, whoever has them open, because a batch that waits is mapped by nobody.
    Of this process the peak counts (since :func:`reset_peak_rss`), of the others the present; so a sample at the end of
    a step does not miss what the step took.
    """
    if "Pss_Anon:" not in _read(_ROLLUP):  # Linux before 5.4, and other systems
        return None
    own = mapped = libraries = 0
    files: dict[int, int] = {}
    for pid in [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]:
        folder = Path("/proc", str(pid))
        try:
            status = _sizes(folder / "status")
            # Fails where the process has ended, of which the status may be left.
            pages = _sizes(folder / "smaps_rollup")
            files |= _shared_files(folder / "fd")
        except OSError:
            continue
        own += pages["Pss_Anon"]
        mapped += pages["Pss_Shmem"]
        libraries = max(libraries, status["RssFile"])
        if pid == os.getpid():
            own += status["VmHWM"] - status["VmRSS"]
    return (own + libraries + max(mapped, sum(files.values()))) / 2**30


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _sizes(file: Path) -> dict[str, int]:
    """Field -> bytes, of the lines ``field: number kB`` in a file of /proc."""
    fields = (line.split() for line in file.read_text().splitlines() if line.endswith(" kB"))
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in fields}


def _shared_files(descriptors: Path) -> dict[int, int]:
    """Inode -> bytes in use, of the files in shared memory that a process has open."""
    sizes = {}
    for link in descriptors.iterdir():
        try:
            if str(link.readlink()).startswith("/dev/shm/"):
                status = link.stat()
                sizes[status.st_ino] = status.st_blocks * 512
        except FileNotFoundError:
            continue  # closed meanwhile
    return sizes
