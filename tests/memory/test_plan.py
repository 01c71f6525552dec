"""Predictions: settings, parts and sums, what grows with what, sharing between GPUs, the known sizes of the 7B."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vilamp.cli import main
from vilamp.config import compose
from vilamp.errors import ConfigError
from vilamp.memory.plan import empty_model, gathered
from vilamp.memory.report import OVERHEAD_GIB, Prediction, predict

TINY = ["model=tiny", "frames=40", "num_keyframes=4", "tokens_per_keyframe=16", "text_tokens=16", "answer_tokens=4"]
GIB = 2**30
RUNS = {
    "infer": ["mode=infer"],
    "train": ["mode=train"],
    "lora": ["mode=train", "lora=default"],
    "lora_in_tower": ["mode=train", "lora=vision"],
    "parts": ["mode=train", "optim.lr.language_model=null"],
    "release": ["mode=train", "variant=release"],
}


def tiny(*overrides: str) -> Prediction:
    return predict(compose("memory", [*TINY, *overrides]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mode=guess", "mode must be one of infer, train, got 'guess'"),
        ("precision=fp8", "precision must be one of bf16, fp32, got 'fp8'"),
        ("device=tpu", "device must be one of cuda, cpu, got 'tpu'"),
        ("frames=0", "frames must be a whole number of at least 1, got 0"),
        ("gpus=1.5", "gpus must be a whole number"),
        ("batch=many", "batch must be a whole number"),
        ("tokens_per_keyframe=15", "tokens_per_keyframe must be a square"),
        ("frames=100000", "does not fit the language model's context"),
    ],
)
def test_a_setting_out_of_range_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(override)


def test_a_path_that_is_given_is_the_model_that_is_counted() -> None:
    given = compose("memory", [*TINY, "model.language_model.path=${asset:vilamp_7b}/language_model"])
    own, seven = (empty_model(cfg)[0].language_model.dim for cfg in (compose("memory", TINY), given))
    assert (own, seven) == (96, 3584)


@pytest.mark.parametrize("run", RUNS)
def test_where_merged_frames_stand_takes_no_memory(run: str) -> None:
    assert tiny(*RUNS[run], "model.merged_step=0.125").parts == pytest.approx(tiny(*RUNS[run]).parts, rel=1e-3)


@pytest.mark.parametrize("run", RUNS)
def test_parts_sum_to_the_total_of_the_highest_phase(run: str) -> None:
    prediction = tiny(*RUNS[run])
    assert prediction.total_gib == pytest.approx(sum(prediction.parts.values()))
    assert prediction.phases[prediction.phase] == max(prediction.phases.values())
    assert prediction.total_gib == pytest.approx(prediction.phases[prediction.phase] + OVERHEAD_GIB)
    assert all(size > 0 for size in prediction.parts.values())
    assert ("optimizer" in prediction.parts) == (run != "infer")
    assert tiny(*RUNS[run], "device=cpu").parts.keys() <= prediction.parts.keys() - {"overhead"}


def test_weights_are_those_of_the_parameters() -> None:
    for precision in ("bf16", "fp32"):
        prediction = tiny("mode=infer", f"precision={precision}")
        model, _ = empty_model(compose("memory", [*TINY]))
        small = 4 if precision == "fp32" else 2
        expected = sum(p.numel() * (4 if n.startswith("scorer.") else small) for n, p in model.named_parameters())
        assert prediction.parts["weights"] * GIB == pytest.approx(expected)


def test_training_keeps_two_moments_of_what_trains() -> None:
    for run in ("train", "lora", "parts"):
        prediction = tiny(*RUNS[run])
        assert prediction.parts["optimizer"] * GIB == pytest.approx(8 * prediction.trainable, rel=1e-2)


def test_more_frames_and_larger_chunks_and_batches_take_more() -> None:
    for run in ("infer", "lora"):
        few, many = (tiny(*RUNS[run], f"frames={frames}").total_gib for frames in (40, 150))
        assert few < many
    for key, small, large in (("model.chunk_size", 8, 64), ("batch", 1, 3)):
        assert tiny("mode=train", f"{key}={small}").total_gib < tiny("mode=train", f"{key}={large}").total_gib
    few, many = (tiny("mode=train", f"num_keyframes={count}") for count in (2, 20))
    assert few.sequence < many.sequence
    assert few.phases["backward"] < many.phases["backward"]


def test_gpus_share_weights_gradients_and_optimizer() -> None:
    one, four = (tiny("mode=train", "precision=fp32", f"gpus={gpus}") for gpus in (1, 4))
    assert four.parts["optimizer"] == pytest.approx(one.parts["optimizer"] / 4)
    assert four.parts["weights"] == pytest.approx(one.parts["weights"] / 4)
    assert four.parts["gathered"] > 0 and "gathered" not in one.parts


def test_a_gpu_holds_all_but_the_blocks_whole_and_two_blocks() -> None:
    model, _ = empty_model(compose("memory", [*TINY, "mode=train", "lora=none", "optim.lr.vision_tower=1e-5"]))
    held, blocks = dict(model.named_parameters()), model.language_model.blocks
    rest = {name: p for name, p in held.items() if "lm.model.layers." not in name}
    trained = sum(p.numel() for p in rest.values() if p.requires_grad)
    block = sum(p.numel() for p in blocks[0].parameters())
    assert sum(p.numel() for p in held.values()) == sum(p.numel() for p in rest.values()) + len(blocks) * block
    whole = 4 * (sum(p.numel() for p in rest.values()) + trained)
    assert gathered(model, 4) == whole + 2 * 4 * block + (4 + 4) * block
    assert gathered(model, 2) == whole + 2 * 2 * block + (2 + 4) * block
    model.requires_grad_(False)
    assert gathered(model, 4) == whole - 4 * trained + 2 * 4 * block


def test_the_7b_has_the_sizes_that_are_known() -> None:
    """Parameters of the published parts: CLIP ViT-B/32; Qwen2-7B; SigLIP-so400m without what nothing reads."""
    model, _ = empty_model(compose("memory", ["model=vilamp_7b"]))
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counts["scorer"] == 151_277_313
    assert counts["language_model"] == 7_615_616_512
    layer = 4 * (1152 * 1152 + 1152) + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152
    assert counts["vision_tower"] == 26 * layer + 1152 * 3 * 14 * 14 + 1152 + 729 * 1152
    projector = 2 * (1152 * 3584 + 3584 + 3584 * 3584 + 3584)
    assert counts["projector"] == projector and counts["merger"] == 1152 * 512
    prediction = predict(compose("memory", ["model=vilamp_7b", "frames=8", "num_keyframes=2", "model.chunk_size=4"]))
    expected = 4 * counts["scorer"] + 2 * (sum(counts.values()) - counts["scorer"])
    assert prediction.parts["weights"] * GIB == pytest.approx(expected)
    assert sum(prediction.parts.values()) == pytest.approx(prediction.total_gib)


def test_nothing_is_left_changed_by_a_prediction() -> None:
    before = torch.random.get_rng_state(), torch.nn.functional.scaled_dot_product_attention
    tiny("mode=train")
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] is torch.nn.functional.scaled_dot_product_attention


def test_the_last_line_is_one_json_object(capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the command leaves a log
    assert main(["memory", *TINY, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["total_gib"] == pytest.approx(sum(told["parts"].values()))
    assert told["settings"]["frames"] == 40
    assert main(["memory", *TINY, "frames=0"]) != 0
    assert "frames" in capsys.readouterr().err
