"""The loss is per answer token over the global batch: however it is spread over ranks, steps and batches."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from launch import CPU, HERE, ended, torchrun
from own_shards import draw_clip, write_shard
from torch import Tensor

import vilamp.training.run as training
from vilamp.config import compose
from vilamp.errors import DivergedError
from vilamp.models.video_lm import Output
from vilamp.samples import Batch, EncodedQuestion
from vilamp.training.module import VideoQA
from vilamp.training.run import train
from vilamp.training.window import Sums, Window

FULL = ["optim=adamw"]
LORA = ["lora=default", "lora.dropout=0"]
SHARP_LORA = [*LORA, "lora.rank=4"]  # of alpha 16: what they add weighs sixteen times as much
TOWER = ["lora=vision", "lora.dropout=0"]
FAST_TOWER = ["lora=small_vision"]
# Float32's rounding grows to 1.5e-5 in 50 steps of SHARP_LORA, 2e-2 of FAST_TOWER: both are compared in float64.
ACCUMULATED = ["trainer.accumulate_grad_batches=2"]
SOAK = pytest.mark.soak
STEPS = [
    pytest.param(5, FULL, id="5 steps, full"),
    pytest.param(5, SHARP_LORA, id="5 steps, LoRA", marks=SOAK),  # the small sample of it is in test_sharding.py
    pytest.param(5, FAST_TOWER, id="5 steps, LoRA in the tower", marks=SOAK),
    *(pytest.param(50, [*FULL, f"seed={seed}"], id=f"50 steps, full, {seed}", marks=SOAK) for seed in range(3)),
    *(pytest.param(50, [*LORA, f"seed={seed}"], id=f"50 steps, LoRA, {seed}", marks=SOAK) for seed in range(3)),
    pytest.param(50, TOWER, id="50 steps, LoRA in the tower", marks=SOAK),
]
TOLERANCE, TOLERANCE_64 = 1e-5, 1e-9
"""Of the loss of a step, relative, in float32 and in float64."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 questions, most of them text, with answers of one to nine words."""
    folder, clip = tmp_path_factory.mktemp("shards"), draw_clip()
    answers = ["red", "a rather light and in places even reddish blue", "green or blue"]
    samples: list[tuple[str, list[dict[str, Any]], bytes | None]] = [
        (f"s{i:03}", [{"question": f"what is {i}?", "answer": answers[i % 3]}], clip if i % 5 == 0 else None)
        for i in range(200)
    ]
    write_shard(folder / "train.tar", samples)
    return folder


def settings(shards: Path, folder: Path, steps: int, batch: int, *more: str) -> list[str]:
    """Of a short run without validation."""
    data = ["data=shards", f"data.train={shards}/train.tar", "data.val=null", "data.num_workers=0"]
    run = [f"hydra.run.dir={folder}", f"trainer.max_steps={steps}", "logger=csv", "selector=uniform"]
    return [*data, f"data.batch_size={batch}", *run, *more]


def losses(
    shards: Path, folder: Path, steps: int, ranks: int, batch: int, *more: str, script: str = "ranked.py"
) -> list[float]:
    """The logged loss of each step, of a run with four samples in a step."""
    arguments = settings(shards, folder, steps, batch, *more)
    done = ended(torchrun(HERE / script, [str(folder.parent), *arguments], ranks))
    assert done.returncode == 0, done.stderr
    with (folder / "metrics.csv").open() as lines:
        return [float(row["train/loss"]) for row in csv.DictReader(lines) if row["train/loss"]]


@pytest.mark.parametrize(("steps", "what"), STEPS)
def test_two_ranks_and_accumulation_make_the_steps_of_one_process(
    shards: Path, tmp_path: Path, steps: int, what: list[str]
) -> None:
    check_the_steps_are_those_of_one_process(partial(losses, shards), tmp_path, steps, what, TOLERANCE)


@pytest.mark.soak
@pytest.mark.parametrize(
    "what",
    [[*FULL, "seed=2"], [*SHARP_LORA, "seed=0"], [*FAST_TOWER, "seed=2"]],
    ids=["full", "LoRA", "LoRA in the tower"],
)
def test_in_float64_two_ranks_and_accumulation_differ_by_its_rounding(
    shards: Path, tmp_path: Path, what: list[str]
) -> None:
    """Where rounding is amplified, float32 cannot tell it from a mistake."""
    run = partial(losses, shards, script="ranked64.py")
    check_the_steps_are_those_of_one_process(run, tmp_path, 50, what, TOLERANCE_64)


def check_the_steps_are_those_of_one_process(
    run: Callable[..., list[float]], folder: Path, steps: int, what: list[str], tolerance: float
) -> None:
    """Compare what ``run`` gives for two ranks, with and without accumulation, with one process."""
    whole = run(folder / "whole", steps, 1, 4, *what)
    assert len(whole) == steps
    spread = run(folder / "spread", steps, 2, 2, "trainer=fsdp", *CPU, *what)
    assert spread == pytest.approx(whole, rel=tolerance)
    two = run(folder / "two", steps, 2, 1, "trainer=ddp", *CPU, *ACCUMULATED, *what)
    assert two == pytest.approx(whole, rel=tolerance)


def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_checkpoints(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Diverging(VideoQA):
        """Its loss is NaN in the third batch, the first of two that one step accumulates over."""

        def training_step(self, batch: Batch, batch_index: int) -> Tensor:
            asked.extend(question.key for question in batch.questions)
            if batch_index == 2:
                with torch.no_grad():
                    self.model.projector.keyframe[0].bias.fill_(math.nan)
            return super().training_step(batch, batch_index)

    monkeypatch.setattr(training, "VideoQA", Diverging)
    run = [*settings(shards, tmp_path / "run", 4, 5, "trainer.accumulate_grad_batches=2"), "checkpoint.every_n_steps=1"]
    with pytest.raises(DivergedError, match="diverged in step 1: loss is nan") as told:
        train(compose("train", [*run, f"paths.output_dir={tmp_path}/run"]))
    assert set(asked[10:]) >= {key for key in asked if key in str(told.value)} != set()
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 1
    assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values())


def test_batches_with_a_loss_that_is_no_number_are_suspects_and_else_all() -> None:
    window = Window()
    questions = [EncodedQuestion(key, *[None] * 5) for key in "abc"]  # type: ignore[arg-type]
    for question, total in zip(questions, [1.0, math.inf, 2.0], strict=True):
        output = Output(torch.tensor(total), 3, torch.tensor([True]), [None], [0])
        window.add(Batch([], [question], [-1]), output)
    assert window.suspects() == ["b"]
    assert window.close(lambda tensor: 2 * tensor) == Sums(math.inf, 18, 6, 6)
    window.sums[1][0] = 0.0
    assert window.suspects() == ["a", "b", "c"]
