"""What LoRA reaches on a domain that the base has not seen, beside full fine-tuning, and what it costs on the old one.

    python benchmarks/domain_shift.py                    # a Markdown table; runs go to outputs/domain_shift
    python benchmarks/domain_shift.py --out FOLDER logger=csv paths.data_dir=FOLDER     # settings for all runs
    python benchmarks/domain_shift.py --quick            # few short videos: its figures mean nothing

Each run is a command of its own, as a user would give it, with the same data, replay share, steps and seed; those that
are there already are not repeated.  Full fine-tuning trains all parts but the scorer, at the rates of optim=adamw.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vilamp.config import register
from vilamp.training.export import export

ROOT = Path(__file__).resolve().parents[1]
DOMAIN = ["experiment=lora_domain"]
FULL = [
    *("lora=none", "optim.lr.language_model=1e-3", "optim.lr.projector=1e-3"),
    *("optim.lr.merger=1e-3", "optim.lr.vision_tower=1e-3"),
]
"""What full fine-tuning changes in the experiment."""
QUICK = [
    *("train_videos=4", "val_videos=4", "min_seconds=12", "max_seconds=16", "events=2", "look_alikes=1"),
    *("questions_per_video=4", "videos_per_shard=4", "num_workers=1", "progress=false"),
]


@dataclass(frozen=True)
class Row:
    """One way of adapting.

    Attributes:
        name: for the table.
        domain, old: accuracy on the new and on the old kind of video.
        share: of the weights that train.
        size: bytes of what a run leaves of them.
    """

    name: str
    domain: float
    old: float
    share: float = 0.0
    size: int = 0


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
    """Make all runs, and compare them."""
    small = [f"data.generate.{setting}" for setting in QUICK] if quick else []
    common = [*common, *(["data.num_workers=0"] if quick else [])]
    trained = [*common, *small, *(["trainer.max_epochs=1"] if quick else [])]
    old = run("train.py", out / "base", [*common, *small, "trainer.max_epochs=0"])["val/accuracy"]
    rows, before = [], 0.0
    for name, changes in (("LoRA", []), ("full fine-tuning", FULL)):
        folder = out / name.partition(" ")[0].lower()
        figures = run("train.py", folder, [*DOMAIN, *trained, *changes])
        before = figures["val/accuracy_before"]
        checkpoint = f"checkpoint={folder / 'checkpoints' / 'best.ckpt'}"
        # The run's own `generate` follows data=needle with the settings of the evaluation.
        on_old = run("evaluate.py", folder / "old", [*common, checkpoint, "data=needle", *small])["val/accuracy"]
        rows.append(Row(name, figures["val/accuracy"], on_old, figures["model/trained_share"], _size(folder)))
    return [Row("before", before, old), *rows]


def _size(folder: Path) -> int:
    """Of the adapter with its connector, or of the weights that the run exports."""
    adapter = folder / "adapter" / "adapter_model.safetensors"
    if adapter.is_file():
        return adapter.stat().st_size
    exported = folder / "exported"
    if not exported.exists():
        register()  # the export resolves where the package's files are
        export(str(folder), exported)
    return sum(file.stat().st_size for file in exported.rglob("*.safetensors"))


def render(rows: Sequence[Row]) -> str:
    """The table in Markdown, and how much of the gain of full fine-tuning LoRA has."""
    lines = ["| | new domain | old domain | weights that train | size |", "|---|---|---|---|---|"]
    for row in rows:
        share, size = (f"{row.share:.2%}", f"{row.size / 1000:,.0f} kB") if row.share else ("", "")
        lines.append(f"| {row.name} | {row.domain:.3f} | {row.old:.3f} | {share} | {size} |")
    before, lora, full = rows
    gained = (lora.domain - before.domain) / (full.domain - before.domain) if full.domain != before.domain else 0.0
    lines += ["", f"LoRA gains {gained:.0%} of what full fine-tuning gains."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/domain_shift"), help="where the runs go")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("overrides", nargs="*", help="settings of all runs and evaluations")
    arguments = parser.parse_args(argv)
    print(render(measure(arguments.out.absolute(), arguments.overrides or ["logger=csv"], arguments.quick)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
