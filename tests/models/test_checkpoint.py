"""Published checkpoints fill the model; whatever does not fit is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from vilamp.errors import ConfigError
from vilamp.models.checkpoint import LLAVA_ONEVISION, RELEASE, Layout, fill

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny_state_dict.safetensors"
LM = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 96}
LM |= {"num_key_value_heads": 1}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "patch_size": 14, "num_hidden_layers": 2}
CLIP = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 64))


def build(release: bool, *, tied: bool = False) -> nn.Module:
    """The names of the whole model, at the golden sizes; the tower is read one layer before its last."""
    model = nn.Module()
    for part in ("scorer", "vision_tower", "language_model", "projector", "merger"):
        model.add_module(part, nn.Module())
    with init_empty_weights(include_buffers=False):
        if release:
            text = CLIP | {"vocab_size": 64, "max_position_embeddings": 16}
            vision = CLIP | {"image_size": 32, "patch_size": 8}
            model.scorer.clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
        tower = SiglipVisionConfig(**TOWER | {"num_hidden_layers": 1}, image_size=384 if release else 28)
        tower.vision_use_head = False
        model.vision_tower.siglip = SiglipVisionModel(tower)
        model.vision_tower.siglip.post_layernorm = nn.Identity()
        model.language_model.lm = Qwen2ForCausalLM(Qwen2Config(**LM, tie_word_embeddings=tied))
    model.projector.keyframe = mlp()
    if release:
        model.projector.newline = nn.Parameter(torch.empty(64))
        model.merger.query_map = nn.Linear(16, 64)
        for name in ("patch_query_map", "patch_anchor_map", "anchor_map"):
            model.merger.add_module(name, nn.Linear(64, 64))
        model.merger.alpha = nn.Parameter(torch.zeros(()))
    else:
        model.projector.merged = mlp()
        model.merger.map = nn.Linear(16, 16)
    return model


def write(folder: Path, state: dict[str, Tensor], shards: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return folder
    names = sorted(state)
    places = {name: f"model-{i % shards}.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: state[name] for name in names if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.mark.parametrize("shards", [1, 3])
def test_every_tensor_of_the_release_is_accounted_for(tmp_path: Path, shards: int) -> None:
    state, model = load_file(GOLDEN), build(release=True)
    report = fill(model, write(tmp_path, state, shards), RELEASE)
    assert set(report.filled.values()) | set(report.left_out) == set(state)
    assert all("layers.1." in name or "post_layernorm" in name for name in report.left_out)
    assert not report.kept
    for name, value in model.named_parameters():
        assert torch.equal(value, state[report.filled[name]].to(value.dtype)), name
    assert report.filled["merger.patch_query_map.weight"] == "model.composer_projector.linear_iq.weight"


def tiny_llava(tied: bool) -> LlavaOnevisionForConditionalGeneration:
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**TOWER, image_size=28).to_dict(),
        text_config=Qwen2Config(**LM, tie_word_embeddings=tied).to_dict(),
        tie_word_embeddings=tied,
    )
    return LlavaOnevisionForConditionalGeneration(config)


def renamed(name: str, old: bool) -> str:
    """What Transformers saves, under the names of the other layout or as they are."""
    bare = name.removeprefix("model.") if name != "lm_head.weight" else "language_model.lm_head.weight"
    bare = bare.replace("vision_tower.vision_model.", "vision_tower.")
    if old:
        return bare.replace("vision_tower.", "vision_tower.vision_model.")
    if bare == "language_model.lm_head.weight":
        return "lm_head.weight"
    return "model." + bare.replace("language_model.model.", "language_model.")


@pytest.mark.parametrize("layout", ["saved", "old", "new"])
@pytest.mark.parametrize("tied", [False, True])
def test_llava_onevision_fills_tower_projector_and_language_model(tmp_path: Path, layout: str, tied: bool) -> None:
    source = tiny_llava(tied)
    source.save_pretrained(tmp_path)
    if layout != "saved":
        state = load_file(tmp_path / "model.safetensors")
        write(tmp_path, {renamed(name, layout == "old"): value for name, value in state.items()})
    model = build(release=False, tied=tied)
    report = fill(model, tmp_path, LLAVA_ONEVISION)
    assert report.kept == ["merger.map.weight", "merger.map.bias"]
    assert set(report.filled.values()) | set(report.left_out) == set(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(model.projector.merged[2].weight, source.model.multi_modal_projector.linear_2.weight)
    assert model.projector.merged[0].weight is not model.projector.keyframe[0].weight
    assert torch.equal(model.language_model.lm.lm_head.weight, source.lm_head.weight)
    assert (model.language_model.lm.lm_head.weight is model.language_model.lm.model.embed_tokens.weight) == tied
    assert not any(value.is_meta for value in model.parameters())


NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("wrong", ["missing", "extra", "renamed", "tower", "shape"])
def test_what_does_not_fit_is_named(tmp_path: Path, wrong: str) -> None:
    state = load_file(GOLDEN)
    expected = NAME
    if wrong == "missing":
        del state[NAME]
    elif wrong == "extra":
        expected = "model.stranger.weight"
        state[expected] = torch.zeros(1)
    elif wrong == "renamed":
        expected = "model.layers.1.mlp.upward.weight"
        state[expected] = state.pop(NAME)
    elif wrong == "tower":  # in a layer that is read
        expected = "model.vision_tower.vision_tower.vision_model.encoder.layers.0.stranger"
        state[expected] = torch.zeros(1)
    else:
        state[NAME] = torch.zeros(3, 64)
        expected = r"has shape \(3, 64\), the model's .* \(128, 64\)"
    with pytest.raises(ConfigError, match=expected):
        fill(build(release=True), write(tmp_path, state), RELEASE)


@pytest.mark.parametrize("layout", [RELEASE, LLAVA_ONEVISION])
def test_an_empty_folder_is_an_error(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(ConfigError, match="holds neither"):
        fill(build(release=True), tmp_path, layout)


def test_another_variant_is_told_which_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="variant=release"):
        fill(build(release=False), write(tmp_path, load_file(GOLDEN)), RELEASE)


def test_parameters_keep_their_dtype(tmp_path: Path) -> None:
    model = build(release=True)
    model.language_model.to(torch.bfloat16)
    fill(model, write(tmp_path, load_file(GOLDEN)), RELEASE)
    assert model.language_model.lm.lm_head.weight.dtype == torch.bfloat16
    assert model.projector.keyframe[0].weight.dtype == torch.float32


MEASURE = """
import sys, torch
from pathlib import Path
from accelerate import init_empty_weights
from torch import nn
from vilamp.models.checkpoint import Layout, Rule, fill

def anonymous():  # the file's pages, which the kernel may drop at any time, do not count
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

with init_empty_weights():
    model = nn.Sequential(*[nn.Linear(1024, 1024, bias=False) for _ in range(32)]).to(getattr(torch, sys.argv[2]))
before, peak, register = anonymous(), 0, nn.Module.register_parameter
def watched(self, name, value):
    global peak
    peak = max(peak, anonymous())
    register(self, name, value)
nn.Module.register_parameter = watched  # called as each parameter is put in, while its source is still held
fill(model, sys.argv[1], Layout((Rule("", ("",)),), (), ""))
print((max(peak, anonymous()) - before) / sum(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="counts resident memory as Linux tells it")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_is_never_in_memory_twice(tmp_path: Path, dtype: str) -> None:
    write(tmp_path, {f"{i}.weight": torch.ones(1024, 1024) for i in range(32)}, shards=3)  # 128 MiB
    command = [sys.executable, "-c", MEASURE, str(tmp_path), dtype]
    times = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 0.9 < times < 1.2
