"""What model.dtype changes and what it must not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from vilamp.build import build_encoder, build_model, build_optim
from vilamp.config import compose
from vilamp.data.needle_scene import Needle, draw_needle, new_haystack
from vilamp.models.precision import hold, precision
from vilamp.models.video_lm import VideoLM
from vilamp.samples import Batch, Question, Video

NEEDLES = [Needle("circle", "red", "centre"), Needle("star", "blue", "left"), Needle("square", "green", "centre")]


def config(*overrides: str) -> DictConfig:
    return compose("train", ["num_keyframes=3", "model.chunk_size=8", *overrides])


def build(cfg: DictConfig) -> VideoLM:
    torch.manual_seed(0)
    return build_model(cfg)


def batch(cfg: DictConfig, model: VideoLM) -> Batch:
    """Three videos of different length with a needle in each, and two questions about each."""
    encode = build_encoder(cfg, model)
    videos, questions = [], []
    for i, needle in enumerate(NEEDLES):
        scene = new_haystack(np.random.default_rng(i))
        frames = [scene.frame(float(second)) for second in range(9 + 4 * i)]
        frames[2 + i] = draw_needle(frames[2 + i], needle)
        videos.append(Video(f"v{i}", torch.from_numpy(np.stack(frames)), torch.arange(len(frames)) * 1.0))
        for text, answer in (
            (f"what colour is the {needle.shape}?", needle.colour),
            (f"where is the {needle.shape}?", needle.place),
        ):
            questions.append(encode(Question(text, answer, text), f"k/{len(questions)}", True, 3))
    return Batch(videos, questions, [0, 0, 1, 1, 2, 2])


@torch.no_grad()
def test_bfloat16_keeps_the_answers_of_float32() -> None:
    found = []
    for name in ("float32", "bfloat16"):
        cfg = config(f"model.dtype={name}", "merger=uniform")  # nothing in it is untrained
        model = build(cfg).eval().requires_grad_(False)
        hold(model, precision(name))
        asked = batch(cfg, model)
        output = model(asked)
        end = build_encoder(cfg, model).tokenizer.eos_token_id
        answers = [answer.tolist() for answer in model.generate(asked, 8, end)]
        keyframes = [s.keyframes.tolist() for s in output.selections if s is not None]
        found.append((output.exact.tolist(), answers, keyframes))
        held = {part: {p.dtype for p in child.parameters()} for part, child in model.named_children()}
        assert held["scorer"] == {torch.float32}
        assert held["language_model"] == held["vision_tower"] == held["projector"] == {precision(name)}
    assert found[0] == found[1]
    assert any(found[0][0]), "some answers are right"


@pytest.mark.parametrize("variant", ["paper", "release"])
@pytest.mark.parametrize("merger", ["differential", "attention", "uniform", "random", "none"])
@pytest.mark.parametrize("lora", ["none", "default"])
def test_what_trains_is_float32_and_its_gradient_too(variant: str, merger: str, lora: str) -> None:
    cfg = config("model.dtype=bfloat16", f"variant={variant}", f"merger={merger}", f"lora={lora}")
    model = build(cfg)
    build_optim(cfg).freeze(model)
    hold(model, precision("bfloat16"))
    output = model(batch(cfg, model).only(0))
    output.loss.backward()
    assert torch.isfinite(output.loss)
    for name, parameter in model.named_parameters():
        exact = parameter.requires_grad or name.startswith("scorer.")
        assert parameter.dtype == (torch.float32 if exact else torch.bfloat16), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
