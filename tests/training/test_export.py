"""A run's model as a folder that stands by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from small_runs import small_run
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPModel, SiglipVisionModel

from vilamp.build import build_model
from vilamp.cli import main
from vilamp.locations import asset
from vilamp.models.lora import adapter_parameters
from vilamp.training.run import Run, evaluate, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]
SMALL = ["lora=vision", "lora.rank=4", "lora.vision_rank=3", "lora.alpha=8", "optim.warmup=0"]
SMALL += ["optim.lr.language_model=1e-2", "optim.lr.vision_tower=1e-2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


def config(root: Path, folder: str, *overrides: str, name: str = "train") -> DictConfig:
    return small_run(root / folder, root / "data", *overrides, name=name)


@pytest.fixture(scope="module")
def adapted(root: Path) -> Run:
    """A run that trained adapters and the connector, with the tower read before its last layer."""
    return train(config(root, "adapted", *SMALL, "model.vision_tower.hidden_layer=-2"))


@pytest.fixture(scope="module")
def exported(root: Path, adapted: Run) -> Path:
    folder = root / "exported"
    assert main(["export", str(adapted.folder), str(folder)]) == 0
    return folder


def test_transformers_reads_each_large_part(adapted: Run, exported: Path) -> None:
    language_model: Any = AutoModelForCausalLM.from_pretrained(exported, subfolder="language_model").eval()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        merged = language_model(input_ids=ids).logits
        apart = adapted.module.model.eval().language_model.lm(input_ids=ids).logits
        base: Any = AutoModelForCausalLM.from_pretrained(asset("tiny/language_model"))
        assert (merged - base(input_ids=ids).logits).abs().max() > 1e-3, "the run has changed nothing"
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(exported, subfolder="language_model")
    assert (
        tokenizer("what colour is the ring?").input_ids
        == adapted.encode.tokenizer("what colour is the ring?").input_ids
    )
    tower = SiglipVisionModel.from_pretrained(exported / "vision_tower")
    assert tower.config.num_hidden_layers == 2
    clip = CLIPModel.from_pretrained(exported / "scorer")
    ours = adapted.module.model.scorer.clip.state_dict()
    assert all(torch.equal(weight, ours[name]) for name, weight in clip.state_dict().items())


def test_the_folder_answers_as_the_run_did(root: Path, adapted: Run, exported: Path) -> None:
    scored = evaluate(config(root, "scored", f"checkpoint={exported}", name="evaluate"))
    assert scored.metrics["val/accuracy"] == adapted.metrics["val/accuracy"]
    assert scored.metrics["val/loss"] == pytest.approx(adapted.metrics["val/loss"], rel=1e-4)


def test_training_starts_from_the_folder(root: Path, exported: Path) -> None:
    paths = [f"model.{part}.path=/no/such/folder" for part in ("scorer", "vision_tower", "language_model", "projector")]
    model = build_model(config(root, "none", "init=run", f"init.path={exported}", *paths, *SMALL))
    assert adapter_parameters(model.language_model)
    assert model.language_model.lm.peft_config["default"].base_model_name_or_path == str(exported / "language_model")
    assert model.vision_tower.siglip.peft_config["default"].base_model_name_or_path == str(exported / "vision_tower")
    assert len(model.vision_tower.siglip.encoder.layers) == 2
    settings = OmegaConf.load(exported / "vilamp.yaml")
    assert settings.lora is None and settings.init is None and settings.model.language_model.path == "language_model"


def test_what_trained_as_a_whole_is_exported_bit_for_bit(root: Path, tmp_path: Path) -> None:
    run = train(config(root, "whole", "lora=none", "merger=attention"))
    assert main(["export", str(run.folder / "checkpoints" / "best.ckpt"), str(tmp_path / "model")]) == 0
    again = evaluate(config(root, "again", f"checkpoint={tmp_path / 'model'}", name="evaluate"))
    ours = run.module.model.state_dict()
    theirs = again.module.model.state_dict()
    assert set(ours) == set(theirs)
    assert {name for name, weight in ours.items() if not torch.equal(weight, theirs[name])} == set()
    assert again.metrics["val/loss"] == run.metrics["val/loss"]


def test_bfloat16_on_request_and_an_export_of_an_export(exported: Path, tmp_path: Path) -> None:
    assert main(["export", str(exported), str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    half: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "half" / "language_model")
    whole: Any = AutoModelForCausalLM.from_pretrained(exported / "language_model")
    for name, weight in half.state_dict().items():
        assert weight.dtype == torch.bfloat16 and torch.equal(weight, whole.state_dict()[name].bfloat16())
    assert CLIPModel.from_pretrained(tmp_path / "half" / "scorer").dtype == torch.float32


def test_nothing_is_written_over_unasked(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (exported / "vilamp.yaml").stat().st_mtime_ns
    assert main(["export", str(exported), str(exported)]) == 1
    assert "exists already; --overwrite replaces it" in capsys.readouterr().err
    assert (exported / "vilamp.yaml").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    assert main(["export", str(exported), str(tmp_path / "mine"), "--overwrite"]) == 1
    assert "it is no export, so it is left alone" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none"), str(tmp_path / "new")]) == 1
    assert "RUN=" in capsys.readouterr().err and not (tmp_path / "new").exists()


@pytest.mark.parametrize("place", ["file/model", "file/deep/er/model", "/proc/model", "/proc/none/model"])
def test_a_folder_that_cannot_be_made_is_one_message(
    place: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc, in which nobody can make a file")
    (tmp_path / "file").write_text("in the way")
    assert main(["export", str(exported), str(tmp_path / place)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: cannot write {(tmp_path / place).parents[place.count('/') - 1]}")
    assert said.endswith("set FOLDER to a folder that can be written\n") and said.count("\n") == 1


def test_a_hub_out_of_reach_is_one_message_and_the_folder_stays(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert main(["export", str(exported), str(tmp_path / "model"), "--push-to-hub", "nobody/nothing"]) == 1
    assert "--push-to-hub=nobody/nothing: the hub cannot be reached or refuses" in capsys.readouterr().err
    assert (tmp_path / "model" / "vilamp.yaml").is_file()
