"""What LoRA reaches on a domain that the base has not seen, beside full fine-tuning, and what it costs on the old one.

    python benchmarks/domain_shift.py            a table; runs go to outputs/domain_shift
    python benchmarks/domain_shift.py --json     the same figures once more, as one JSON object on the last line
    python benchmarks/domain_shift.py --quick    few short videos: shows that it runs, its figures mean nothing
    python benchmarks/domain_shift.py --out FOLDER paths.data_dir=FOLDER     settings for all runs

The base is a default run on the first kind of needle video; both ways start from it.  Each run is a command of its own,
as a user would give it, with the same data, replay share, steps and seed, on videos by which neither ranks nor rates
were chosen (docs/lora.md tells what was).  Those that are there already are not repeated.  Full fine-tuning trains all
parts but the scorer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import Column, Row, options, report

from vilamp.config import register
from vilamp.training.export import export

ROOT = Path(__file__).resolve().parents[1]
RUN = ["report=false", "logger=csv"]
BASE = ["selector=differential", "merger=differential"]
DOMAIN = ["experiment=lora_domain", "data.generate.seed=1"]
"""Ranks, rates and the look of the videos were chosen on videos of other seeds."""
FULL = [
    *("lora=none", "optim.lr.language_model=5e-4", "optim.lr.projector=5e-4"),
    *("optim.lr.merger=5e-4", "optim.lr.vision_tower=5e-4"),
]
"""What full fine-tuning changes in the experiment."""
QUICK = [
    *("train_videos=4", "val_videos=4", "min_seconds=12", "max_seconds=16", "events=2", "look_alikes=1"),
    *("questions_per_video=4", "videos_per_shard=4", "num_workers=1", "progress=false"),
]

COLUMNS = (
    Column("way", ""),
    Column("domain", "new domain", ".3f"),
    Column("old", "old domain", ".3f"),
    Column("gain_of_full", "gain, of full's", ".0%"),
    Column("trained_share", "weights that train", ".2%"),
    Column("bytes", "size, kB", ",.0f", scale=1e-3),
)


def run(script: str, folder: Path, overrides: Sequence[str]) -> dict[str, float]:
    """The figures of a run, which is made unless it is there."""
    done = folder / "metrics.json"
    if not done.is_file():
        command = [sys.executable, str(ROOT / script), f"hydra.run.dir={folder}", *overrides]
        print(" ".join(["python", script, *overrides]), file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=sys.stderr)
    figures: dict[str, float] = json.loads(done.read_text())
    return figures


def measure(out: Path, common: Sequence[str], quick: bool) -> list[Row]:
    """Make all runs, and compare them: a row for the base, for LoRA and for full fine-tuning.

    A row has accuracy on the new and on the old kind of video, the share of what full fine-tuning gains on the new one,
    the share of the weights that train, and the bytes of what a run leaves of them.
    """
    small = [f"data.generate.{setting}" for setting in QUICK] if quick else []
    in_place = ["data.num_workers=0"] if quick else []
    trained = [*RUN, *small, *in_place, *(["trainer.max_epochs=1"] if quick else [])]
    base = out / "base"
    old = run("train.py", base, [*BASE, *trained, *common])["val/accuracy"]
    start = ["init=run", f"init.path={base}"]
    rows: list[dict[str, str | float]] = [{"way": "before", "old": old, "trained_share": 0.0, "bytes": 0}]
    for way, changes in (("LoRA", []), ("full fine-tuning", FULL)):
        folder = out / way.partition(" ")[0].lower()
        figures = run("train.py", folder, [*DOMAIN, *BASE, *start, *trained, *changes, *common])
        # The run's own `generate` follows data=needle with the settings of the evaluation.
        of_old = [f"checkpoint={folder}", "data=needle", *RUN, *small, *in_place]
        on_old = run("evaluate.py", folder / "old", [*of_old, *common])
        rows[0]["domain"] = figures["val/accuracy_before"]
        reached = {"domain": figures["val/accuracy"], "old": on_old["val/accuracy"]}
        rows.append({"way": way, **reached, "trained_share": figures["model/trained_share"], "bytes": _size(folder)})
    before, full = (float(row["domain"]) for row in (rows[0], rows[-1]))
    return [{**row, "gain_of_full": (float(row["domain"]) - before) / (full - before or 1.0)} for row in rows]


def _size(folder: Path) -> int:
    """Of the adapters, or of the weights that the run exports."""
    kept = folder / "adapter"
    if not kept.exists():
        kept = folder / "exported"
    if not kept.exists():
        register()  # the export resolves where the package's files are
        export(str(folder), kept)
    return sum(file.stat().st_size for file in kept.rglob("*.safetensors"))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--out", type=Path, default=Path("outputs/domain_shift"), help="where the runs go")
    own.add_argument("overrides", nargs="*", help="settings of all runs and evaluations")
    wanted = options(__doc__ or "", argv, parents=[own])
    rows = measure(wanted.out.absolute(), wanted.overrides, wanted.quick)
    report("Accuracy on a new domain and on the old one", rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
