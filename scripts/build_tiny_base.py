"""Build ``vilamp/assets/tiny``: the small pretrained parts that the default run starts from.

    python scripts/build_tiny_base.py            # about 15 minutes on one core; writes the folder and its README

What LLaVA-OneVision is to ViLaMP, this is to ``model=tiny``: a scorer that matches questions to frames, a vision tower,
a projector and a language model that answer questions about some frames, most of which may be one token.  It has never
seen a video.  What redundancy leaves of a frame (T of Eq. 7) and the long video are left to the run.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from tiny_base.language import build_language_side, teach_merged_tokens
from tiny_base.lesson import console
from tiny_base.scorer import build_scorer
from tiny_base.scores import measure
from tiny_base.text import build_tokenizers
from tiny_base.tower import build_tower

README = """# The tiny base

Small pretrained parts for `model=tiny`, in the layout of the large ones: `scorer/` (CLIP), `vision_tower/` (SigLIP),
`language_model/` (Qwen2), each readable with Transformers' `from_pretrained`, and `projector.safetensors` (both MLPs).
Made by us from drawings of `vilamp/data/needle_scene.py`; no foreign weights or data. They have never seen a video.
The scorer learns shapes and colours, not places, and matches questions with whole frames and with the tower's patches.

Rebuild and measure: `python scripts/build_tiny_base.py` (seed {seed}); measure only: `--measure`.

| measured | score |
|---|---|
{rows}
"""


def main() -> None:
    """Build, save, measure, write the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1] / "vilamp" / "assets" / "tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps only, to test this script")
    parser.add_argument("--measure", action="store_true", help="do not build, measure what is there")
    arguments = parser.parse_args()
    root: Path = arguments.root
    if not arguments.measure:
        start = time.perf_counter()
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        build_tokenizers(root)
        build_tower(root, 3 if arguments.quick else 1200, arguments.seed)
        build_scorer(root, 3 if arguments.quick else 800, arguments.seed)
        build_language_side(root, arguments.quick, arguments.seed)
        teach_merged_tokens(root, arguments.quick, arguments.seed)
        console.print(f"built in {(time.perf_counter() - start) / 60:.1f} minutes")
    scores = measure(root, arguments.seed + 1)
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in scores.items())
    (root / "README.md").write_text(README.format(seed=arguments.seed, rows=rows))
    console.print(rows)


if __name__ == "__main__":
    main()
