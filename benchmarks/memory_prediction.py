"""Is what ``vilamp memory`` predicts what a run takes?  Predicted peaks beside the resident set of real runs on a CPU.

    python benchmarks/memory_prediction.py

Two models with random weights, of the parts of ``model=vilamp_7b`` in small, are run for real in float32: an answer
(``infer``), a step of LoRA (``lora``), and a step that trains merger and projector below a frozen language model
(``parts``).  What is compared is the whole growth of the process from before the model is made, weights and optimiser
included.  Training is measured over two steps, since the first one fills the optimiser's state.  Exits with 1 if a
prediction is wrong by more than 15 %.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Column, Row, extra_mib, growth_mib, options, report
from omegaconf import DictConfig
from small_model import rolling_video
from torch import nn

from vilamp.config import compose
from vilamp.memory.plan import QUERY_TOKENS, empty_model
from vilamp.memory.report import predict
from vilamp.models.video_lm import VideoLM
from vilamp.samples import IGNORED, VIDEO_TOKEN, Batch, EncodedQuestion, Question

TOLERANCE = 0.15
"""Of a prediction, relative to what was measured."""

KEYFRAMES, TOKENS, TEXT, ANSWER, FRAME, CHUNK = 16, 16, 32, 8, 112, 16
"""Keyframes, tokens of one, tokens of a question and of an answer, pixels of a frame's side, frames of a chunk."""

WIDTHS = {"quick": (64, 2, 512), "small": (384, 6, 8_192), "large": (768, 10, 16_384)}
"""Width, layers and vocabulary of the language model; the tower has half the width."""

RUNS = {
    "infer": ("mode=infer",),
    "lora": ("mode=train", "lora=default"),
    "parts": ("mode=train", "optim.lr.language_model=null"),
}

SIZES: tuple[tuple[str, int], ...] = (("small", 256), ("small", 1_024), ("large", 256), ("large", 1_024))
QUICK_SIZES: tuple[tuple[str, int], ...] = (("quick", 40),)

COLUMNS = (
    Column("run", "run"),
    Column("model", "model"),
    Column("parameters", "parameters, M", ".1f", 1e-6),
    Column("frames", "frames", ","),
    Column("tokens", "tokens", ","),
    Column("predicted_mib", "predicted, MiB", ",.0f"),
    Column("measured_mib", "measured, MiB", ",.0f"),
    Column("error", "error, %", "+.1f", 100),
)


def write_configs(folder: Path, model: str) -> None:
    """Write the ``config.json`` of scorer, vision tower and language model."""
    width, layers, vocabulary = WIDTHS[model]
    transformer = {"hidden_size": width // 2, "intermediate_size": width * 2, "num_hidden_layers": layers}
    transformer |= {"num_attention_heads": max(1, width // 128)}
    text = {**transformer, "vocab_size": 1_000, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**transformer, "image_size": 112, "patch_size": 16}
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    language = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": vocabulary}
    language |= {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    language |= {"num_attention_heads": max(2, width // 64), "num_key_value_heads": max(1, width // 192)}
    language |= {"max_position_embeddings": 8_192, "tie_word_embeddings": False}
    language |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    parts: dict[str, dict[str, Any]] = {
        "scorer": {
            "model_type": "clip",
            "projection_dim": width // 2,
            "text_config": {**text, "model_type": "clip_text_model"},
            "vision_config": {**vision, "model_type": "clip_vision_model"},
        },
        "vision_tower": {
            "model_type": "siglip_vision_model",
            **vision,
            "patch_size": 14,
            "num_hidden_layers": layers + 1,
        },
        "language_model": language,
    }
    for part, config in parts.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
        (folder / part / "preprocessor_config.json").write_text(json.dumps(pixels))


def settings(folder: Path, run: str, model: str, frames: int) -> DictConfig:
    """The planner's configuration of one point; the models are written below ``folder``."""
    architecture = folder / model
    if not architecture.exists():
        write_configs(architecture, model)
    counts = {"frames": frames, "num_keyframes": KEYFRAMES, "tokens_per_keyframe": TOKENS, "text_tokens": TEXT}
    counts |= {"answer_tokens": ANSWER, "model.frame_size": FRAME, "model.chunk_size": CHUNK}
    counts |= {"model.scorer.chunk_size": CHUNK}
    sizes = [f"{key}={value}" for key, value in counts.items()]
    where = [f"model.architecture={architecture}", "device=cpu", "precision=fp32", "variant.fill_up=true"]
    return compose("memory", [*sizes, *where, *RUNS[run]])


def materialise(model: VideoLM) -> None:
    """Give every parameter that has none a memory of its own, with random numbers."""
    made: dict[int, nn.Parameter] = {}
    for parameter in model.parameters():
        numbers = torch.empty(parameter.shape).normal_(std=0.02)
        made[id(parameter)] = nn.Parameter(numbers, requires_grad=parameter.requires_grad)
    for module in model.modules():
        for name, held in module._parameters.items():
            if held is not None:
                module._parameters[name] = made[id(held)]


def batch_of(cfg: DictConfig) -> Batch:
    """One video and a question about it, of the lengths that the planner assumes."""
    text = torch.full((cfg.text_tokens + 1,), 5)
    text[cfg.text_tokens // 2] = VIDEO_TOKEN
    ids = torch.cat([text, torch.full((cfg.answer_tokens,), 7)])
    labels = torch.cat([torch.full_like(text, IGNORED), ids[-cfg.answer_tokens :]])
    query = torch.cat([torch.arange(2, QUERY_TOKENS + 1), torch.tensor([1])])
    source = Question("random", "random", "random")
    video = rolling_video(cfg.frames, cfg.model.frame_size)
    return Batch([video], [EncodedQuestion("random/0", source, query, ids, labels, 0)], [0])


def run_for_real(cfg: DictConfig) -> VideoLM:
    """Make the model and let it answer, or train for two steps."""
    torch.manual_seed(0)
    model, optim = empty_model(cfg)
    materialise(model)
    batch = batch_of(cfg)
    if optim is None:
        model.generate(batch, cfg.answer_tokens, 0)
        return model
    optimizer, _ = optim.optimizer(model, 2)
    for _ in range(2):
        optimizer.zero_grad()
        model(batch).loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], cfg.gradient_clip_val)
        optimizer.step()
    return model


def grow(folder: Path, run: str, model: str, frames: int) -> float:
    """MiB that the run takes in this process, with its weights."""
    run_for_real(settings(folder, run, "quick", 40))  # loads what torch loads at the first use
    gc.collect()
    cfg = settings(folder, run, model, frames)
    return growth_mib(lambda: run_for_real(cfg))


def measure(run: str, model: str, frames: int) -> Row:
    """The row of one point."""
    with TemporaryDirectory() as folder:
        cfg = settings(Path(folder), run, model, frames)
        prediction = predict(cfg)
        parameters = sum(p.numel() for p in empty_model(cfg)[0].parameters())
    predicted, measured = prediction.total_gib * 1024, extra_mib(__file__, run, model, frames)
    return {
        "run": run,
        "model": model,
        "parameters": parameters,
        "frames": frames,
        "tokens": prediction.sequence,
        "predicted_mib": predicted,
        "measured_mib": measured,
        "error": predicted / measured - 1,
    }


def main(argv: Sequence[str] | None = None, measured: Callable[[str, str, int], Row] = measure) -> int:
    """Print a line for every point; 1 if one of them is wrong by more than :data:`TOLERANCE`."""
    wanted = options(__doc__ or "", argv)
    if wanted.grow:
        run, model, frames = wanted.grow
        with TemporaryDirectory() as folder:
            print(grow(Path(folder), run, model, int(frames)))
        return 0
    rows = [measured(run, *size) for run in RUNS for size in (QUICK_SIZES if wanted.quick else SIZES)]
    report(f"Peak memory of a run on a CPU, float32, K = {KEYFRAMES}", rows, COLUMNS, wanted.json)
    worst = max(abs(float(row["error"])) for row in rows)
    return 0 if worst <= TOLERANCE or wanted.quick else 1


if __name__ == "__main__":
    sys.exit(main())
