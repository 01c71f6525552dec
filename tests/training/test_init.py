"""Runs that start from one published checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from omegaconf import DictConfig
from small_runs import small_run
from transformers import (
    AutoModelForCausalLM,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    SiglipVisionConfig,
)

from vilamp.build import build_encoder, build_model
from vilamp.errors import ConfigError
from vilamp.locations import asset
from vilamp.models.checkpoint import Checkpoint
from vilamp.training.run import evaluate, train

TINY = asset("tiny")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA-OneVision of the tiny sizes as Transformers saves it: two layers of the tower are read, one is not."""
    folder = tmp_path_factory.mktemp("llava")
    tower = SiglipVisionConfig.from_pretrained(TINY / "vision_tower")
    language = AutoModelForCausalLM.from_pretrained(TINY / "language_model").config
    config = LlavaOnevisionConfig(
        vision_config=tower.to_dict(),
        text_config=language.to_dict(),
        vision_feature_layer=-2,
        tie_word_embeddings=language.tie_word_embeddings,
    )
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder, max_shard_size="400KB")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / "language_model" / file, folder)
    own = {"image_mean": [0.25, 0.5, 0.75], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    return folder


@pytest.fixture
def config(llava: Path, tmp_path: Path) -> Any:
    def composed(*overrides: str, name: str = "train", folder: str = "run") -> DictConfig:
        start = [] if "init=parts" in overrides else ["init=llava_onevision", f"init.path={llava}"]
        start = start if name == "train" else []
        return small_run(tmp_path / folder, tmp_path / "data", *start, *overrides, name=name)

    return composed


def test_a_run_starts_from_llava_onevision_and_its_evaluation_too(
    config: Any, llava: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (llava / "model.safetensors.index.json").is_file(), "several shards"
    run = train(config())
    assert f"parameters from {llava}" in capsys.readouterr().out
    told = json.loads((run.folder / "init.json").read_text())
    assert {name.split(".")[0] for name in told["kept"]} == {"scorer", "merger"}
    assert all("layers.2." in name or "post_layernorm" in name for name in told["left_out"] if "newline" not in name)
    held = set(told["filled"].values()) | set(told["left_out"])
    places = json.loads((llava / "model.safetensors.index.json").read_text())["weight_map"]
    assert held == set(places)
    scored = evaluate(config(f"checkpoint={run.folder / 'checkpoints' / 'best.ckpt'}", name="evaluate", folder="eval"))
    shared = [name for name in scored.metrics if name.startswith("val/") or name == "visual_tokens"]
    assert len(shared) > 3
    assert {name: scored.metrics[name] for name in shared} == {name: run.metrics[name] for name in shared}
    assert run.trainer.global_step == 2


def test_the_checkpoint_says_what_its_parts_are(config: Any, llava: Path) -> None:
    """None of the paths of tower, projector and language model is read; nor is hidden_layer."""
    nowhere = ["vision_tower", "projector", "language_model"]
    cfg = config(*[f"model.{part}.path=/no/such/folder" for part in nowhere], "lora=default")
    model = build_model(cfg)
    assert len(model.vision_tower.siglip.encoder.layers) == 2
    assert model.vision_tower.preprocess.mean.flatten().tolist() == [0.25, 0.5, 0.75]
    assert build_encoder(cfg, model).tokenizer.name_or_path == str(llava)
    adapted = [name for name, _ in model.language_model.named_parameters() if "lora_" in name]
    assert adapted and not any(parameter.is_meta for parameter in model.parameters())


def test_scorer_keeps_its_own_weights(config: Any) -> None:
    filled, parts = build_model(config()), build_model(config("init=parts"))
    for name, weight in parts.scorer.state_dict().items():
        assert torch.equal(filled.scorer.state_dict()[name], weight), name
    assert parts.init_report is None


def test_another_kind_of_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava_qwen"}')
    with pytest.raises(ConfigError, match=r"init\.path=.* is a checkpoint of llava_qwen; .*LLaVA-OneVision"):
        Checkpoint(str(tmp_path), "llava_onevision").language_model()
    with pytest.raises(ConfigError, match=r"init\.layout=llama must be one of llava_onevision, release"):
        Checkpoint(str(tmp_path), "llama")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        (["init.path=nobody/nothing"], "init.path"),
        (["model.scorer.path=nobody/nothing"], "model.scorer.path"),
        (["init=parts", "model.vision_tower.path=nobody/nothing"], "model.vision_tower.path"),
        (["init=parts", "model.language_model.path=nobody/nothing"], "model.language_model.path"),
        (["init.path=/no/such/folder"], "init.path"),
    ],
)
def test_a_hub_out_of_reach_is_one_error_that_names_the_setting(
    config: Any, offline: None, overrides: list[str], setting: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^{setting}=.* cannot be found.*set {setting} to a local folder"):
        build_model(config(*overrides))
