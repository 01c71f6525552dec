"""How long ``import vilamp`` takes, beside ``import torch``.

    python benchmarks/bench_import.py

Each import has a fresh interpreter, whose own start is not counted.  The best of several is taken, since everything
else on the machine only adds to it.  The promise is 0.2 s at most.
"""

from __future__ import annotations

import subprocess
import sys

PROMISE_SECONDS = 0.2
REPEATS = 7
CODE = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def best(module: str, repeats: int = REPEATS) -> float:
    """Seconds that importing a module takes, the best of ``repeats``."""
    command = [sys.executable, "-c", CODE.format(module)]
    return min(
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(repeats)
    )


def main() -> int:
    """Print the figures; returns 1 where the promise is broken."""
    ours, torchs = best("vilamp"), best("torch", repeats=3)
    print(f"import vilamp: {ours:.4f} s (promised: {PROMISE_SECONDS} s at most)")
    print(f"import torch:  {torchs:.4f} s, {torchs / ours:.0f} times as long")
    return int(ours > PROMISE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
