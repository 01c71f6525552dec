"""What the parts of the tiny base have in common: questions of its scorer lie where the patches of its tower do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vilamp.build import build_encoder, build_model
from vilamp.config import compose
from vilamp.data.needle_scene import SIZE, ask, draw_needle, new_haystack, new_needles
from vilamp.locations import asset
from vilamp.samples import Question


@torch.no_grad()
def weight_on_the_needle(turn: torch.Tensor | None = None) -> float:
    """The mean share of DFM's weight on the needle that is asked for, behind a keyframe with its look-alike.

    Args:
        turn: what is done to a question before it is compared; None leaves it as it is, as an untrained merger does.
    """
    cfg = compose("train")
    model = build_model(cfg).eval()
    if turn is not None:
        model.merger.query_map.weight.copy_(turn)
    encode = build_encoder(cfg, model)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(40):
        asked, shown = new_needles(2, 2, rng)
        scene = new_haystack(rng)
        bare = scene.frame(float(rng.uniform(0, 60)))
        keyframe, frame = draw_needle(scene.frame(float(rng.uniform(0, 60))), shown), draw_needle(bare, asked)
        text, answer = ask(asked, "look_alike", rng)
        question = encode(Question(text, answer, text, "look_alike"), "", True, 0)
        anchors, patches = model.vision_tower(torch.from_numpy(np.stack([keyframe, frame]))).split(1)
        query = model.scorer.embed_queries([question.query_ids])[0]
        weights = model.merger.token_weights(patches, anchors, torch.tensor([0]), query)[0, 0]
        side = model.vision_tower.grid
        drawn = (frame != bare).any(-1).reshape(side, SIZE // side, side, SIZE // side).any(axis=(1, 3)).ravel()
        shares.append(float(weights[torch.from_numpy(drawn)].sum()))
    return float(np.mean(shares))


def test_the_weight_is_on_what_is_asked_for_behind_a_look_alike() -> None:
    assert weight_on_the_needle() > 0.95


def test_in_a_space_of_its_own_a_question_says_too_little_of_the_patches() -> None:
    dim = build_model(compose("train")).merger.query_map.in_features
    turn = torch.nn.init.orthogonal_(torch.empty(dim, dim), generator=torch.Generator().manual_seed(0))
    assert weight_on_the_needle(turn) < 0.8


@pytest.mark.soak
def test_the_script_makes_all_that_ships(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "build_tiny_base.py"
    subprocess.run([sys.executable, str(script), "--quick", "--root", str(tmp_path)], check=True, capture_output=True)
    ships = asset("tiny")
    assert {file.relative_to(tmp_path) for file in tmp_path.rglob("*.*")} == {
        file.relative_to(ships) for file in ships.rglob("*.*")
    }
    for file in ships.rglob("*.safetensors"):
        ours, made = load_file(file), load_file(tmp_path / file.relative_to(ships))
        assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in made.items()}, file
