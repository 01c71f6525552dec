"""Whether a training run left what the README says and reached what it promises.

python scripts/check_run.py outputs/DAY/TIME --accuracy 0.95 --rss-gib 4
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

LEFT = (
    "config.yaml",
    "metrics.json",
    "metrics.csv",
    "val_answers.jsonl",
    "samples.json",
    "report.html",
    "timeline.png",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
)
"""What every training run writes, unless a setting says otherwise."""


def faults(folder: Path, least_accuracy: float, most_rss_gib: float) -> list[str]:
    """All that is wrong with a run, in words; empty where nothing is."""
    missing = [f"{folder / name} is missing or empty" for name in LEFT if not _filled(folder / name)]
    if not _filled(folder / "metrics.json"):
        return missing
    metrics = json.loads((folder / "metrics.json").read_text())
    accuracy, rss = metrics["val/accuracy"], metrics["memory/peak_rss_gib"]
    print(f"accuracy {accuracy:.4f} (at least {least_accuracy}), peak memory {rss:.2f} GiB (at most {most_rss_gib})")
    if not accuracy >= least_accuracy:  # so written, a NaN is a fault too
        missing.append(f"val/accuracy is {accuracy}, promised: at least {least_accuracy}")
    if not rss <= most_rss_gib:
        missing.append(f"memory/peak_rss_gib is {rss}, promised: at most {most_rss_gib}")
    if metrics["data/skipped"]:
        missing.append(f"data/skipped is {metrics['data/skipped']}; {folder / 'quarantine.jsonl'} says why")
    return missing


def _filled(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def main(argv: Sequence[str] | None = None) -> int:
    """Print what is wrong; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the run")
    parser.add_argument("--accuracy", type=float, required=True, help="on the validation set, at least")
    parser.add_argument("--rss-gib", type=float, required=True, help="peak memory of the process, at most")
    arguments = parser.parse_args(argv)
    found = faults(arguments.folder, arguments.accuracy, arguments.rss_gib)
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
