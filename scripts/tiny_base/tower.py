"""A vision tower that knows what there is to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from tiny_base.lesson import console, cosine
from tiny_base.pictures import GRID, draw_frames
from vilamp.data.needle_scene import COLOURS, PLACES, SHAPES, SIZE, new_needles
from vilamp.models.vision_tower import SiglipTower


def build_tower(root: Path, steps: int, seed: int) -> None:
    """A vision tower that knows what there is to see."""
    torch.manual_seed(seed)
    new_tower(root)
    train_tower(root, steps, np.random.default_rng([seed, 3]))


def new_tower(root: Path) -> None:
    """An untrained vision tower."""
    tower = SiglipVisionConfig(
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=SIZE // GRID,
    )
    SiglipVisionModel(tower).save_pretrained(root / "vision_tower")
    half = [0.5, 0.5, 0.5]
    processor = SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=half, image_std=half)
    processor.save_pretrained(root / "vision_tower")


def train_tower(root: Path, steps: int, rng: np.random.Generator) -> None:
    """Name shape, colour and place of the needle at every patch that it covers, and nothing at every other patch.

    So a patch says all about what it is part of, which is what a question that names one property and asks for another
    has to find in one place.
    """
    tower = SiglipTower(str(root / "vision_tower"), -1).train()
    values = {"shape": list(SHAPES), "colour": list(COLOURS), "place": list(PLACES)}
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(tower.dim, 1 + len(known)) for name, known in values.items()})
    norm = torch.nn.LayerNorm(tower.dim)
    parameters = [*tower.parameters(), *heads.parameters(), *norm.parameters()]
    peak = 2e-3
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.01)
    for step in range(steps):
        needles = [needle for _ in range(12) for needle in new_needles(8, 1, rng)]
        frames, covered = draw_frames([*needles], rng)
        is_needle, is_clear = covered > 0.3, covered == 0  # what lies between is left undecided
        patches = norm(tower(frames))
        losses, named = [], {}
        for name, known in values.items():
            logits = heads[name](patches)
            right = torch.tensor([1 + known.index(getattr(needle, name)) for needle in needles])
            on_needle, wanted = logits[is_needle], right[:, None].expand_as(is_needle)[is_needle]
            losses.append(F.cross_entropy(on_needle, wanted))
            losses.append(F.cross_entropy(logits[is_clear], torch.zeros(int(is_clear.sum()), dtype=torch.int64)))
            named[name] = (on_needle.argmax(1) == wanted).float().mean().item()
        optimizer.param_groups[0]["lr"] = peak * cosine(step, steps)
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 99:
            console.print(f"tower {step + 1}: " + ", ".join(f"{name} {share:.3f}" for name, share in named.items()))
    tower.siglip.post_layernorm = torch.nn.LayerNorm(tower.dim)  # Transformers expects one in the file
    tower.siglip.save_pretrained(root / "vision_tower")
