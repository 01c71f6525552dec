"""What a run trained, in every form that it is kept in, and starting again from each."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from peft import PeftModel
from safetensors.torch import load_file
from small_runs import small_run
from transformers import AutoModelForCausalLM, SiglipVisionModel

from vilamp.build import build_model
from vilamp.errors import ConfigError
from vilamp.locations import asset
from vilamp.models.lora import adapter_parameters
from vilamp.training.run import Run, evaluate, train
from vilamp.training.trained import read_trained, replace_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]
SMALL = ["lora=vision", "lora.rank=4", "lora.vision_rank=3", "lora.alpha=8", "optim.warmup=0"]
SMALL += ["optim.lr.language_model=1e-2", "optim.lr.vision_tower=1e-2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


def config(root: Path, folder: str, *overrides: str, name: str = "train") -> DictConfig:
    domain = ["data=needle_domain"] if name == "train" else []
    return small_run(root / folder, root / "data", *domain, *overrides, name=name)


@pytest.fixture(scope="module")
def adapted(root: Path) -> Run:
    """A run that trained adapters in language model and tower, the merger and the projector."""
    return train(config(root, "adapted", *SMALL, "model.vision_tower.hidden_layer=-2"))


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def test_plain_peft_loads_the_adapter_beside_the_plain_language_model(adapted: Run) -> None:
    settings = json.loads((adapted.folder / "adapter" / "adapter_config.json").read_text())
    assert settings["r"] == 4 and settings["lora_alpha"] == 8 and settings["task_type"] == "CAUSAL_LM"
    assert settings["base_model_name_or_path"] == str(asset("tiny/language_model"))
    base: Any = AutoModelForCausalLM.from_pretrained(settings["base_model_name_or_path"]).eval()
    ids = torch.arange(40)[None]
    untrained = base(input_ids=ids).logits
    with warnings.catch_warnings():  # PEFT asks Transformers for something under its old name
        warnings.simplefilter("ignore", FutureWarning)
        theirs = PeftModel.from_pretrained(base, adapted.folder / "adapter").eval()
    ours = adapted.module.model.eval().language_model.lm
    with torch.no_grad():
        logits = theirs(input_ids=ids).logits
        assert torch.equal(logits, ours(input_ids=ids).logits)
    assert (logits - untrained).abs().max() > 1e-3, "the run has changed nothing"


def test_plain_peft_loads_the_adapter_of_the_tower_beside_the_plain_tower(adapted: Run) -> None:
    """Which has a layer more than is read, and a head, that must stay without adapters."""
    folder = adapted.folder / "adapter" / "vision_tower"
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["r"] == 3 and settings["base_model_name_or_path"] == str(asset("tiny/vision_tower"))
    base: Any = SiglipVisionModel.from_pretrained(settings["base_model_name_or_path"]).eval()
    ours = adapted.module.model.eval().vision_tower
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pixels = ours.preprocess(frames)
        untrained = base(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        theirs = PeftModel.from_pretrained(base, folder).eval()
        patches = theirs(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(patches, ours(frames))
    assert (patches - untrained).abs().max() > 1e-3, "the run has changed nothing"
    assert not [warning for warning in told if "missing" in str(warning.message).lower()]
    assert adapter_parameters(theirs) == {
        f"base_model.model.{name.removeprefix('siglip.')}" for name in adapter_parameters(ours)
    }


def test_the_connector_holds_merger_and_projector_of_the_best_checkpoint(adapted: Run) -> None:
    best = torch.load(adapted.folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    connector = load_file(adapted.folder / "connector.safetensors")
    assert {name.split(".")[0] for name in connector} == {"merger", "projector"}
    for name, weight in connector.items():
        assert torch.equal(weight, best[f"model.{name}"]), name
    left = {path.name for path in adapted.folder.iterdir()}
    assert {"adapter", "connector.safetensors"} <= left and not [name for name in left if "partial" in name]
    assert not (adapted.folder / "unfinished.tmp").exists()


def test_what_trained_outside_the_language_model_is_in_the_connector_too(root: Path) -> None:
    rates = ["optim.lr.vision_tower=1e-3", "optim.lr.projector=null", "trainer.max_epochs=0"]
    run = train(config(root, "tower", "lora=default", *rates))
    held = {name.split(".")[0] for name in load_file(run.folder / "connector.safetensors")}
    assert held == {"merger", "projector", "vision_tower"}


@pytest.mark.parametrize("form", ["", "checkpoints/best.ckpt", "adapter"])
def test_every_form_is_the_same_model(adapted: Run, form: str) -> None:
    trained = read_trained(str(adapted.folder / form), "init.path")
    model = build_model(OmegaConf.create({**trained.config, "paths": {"data_dir": "none"}}))
    model.state_dict()["projector.keyframe.0.weight"].zero_()
    trained.fill(model)
    expected = adapted.module.model.state_dict()
    assert {name for name, weight in model.state_dict().items() if not torch.equal(weight, expected[name])} == set()


def test_adapters_of_a_run_that_is_gone_are_evaluated_elsewhere(root: Path, adapted: Run, tmp_path: Path) -> None:
    for part in ("adapter", "connector.safetensors"):
        source = adapted.folder / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / part)
    scored = evaluate(config(root, "elsewhere", f"checkpoint={tmp_path / 'adapter'}", name="evaluate"))
    assert scored.metrics["val/loss"] == adapted.metrics["val/loss"]
    shutil.move(tmp_path / "adapter" / "vision_tower", tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"adapter lacks vision_tower/, the adapters that its settings"):
        evaluate(config(root, "elsewhere", f"checkpoint={tmp_path / 'adapter'}", name="evaluate"))
    shutil.move(tmp_path / "elsewhere", tmp_path / "adapter" / "vision_tower")
    (tmp_path / "connector.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"checkpoint: .*connector\.safetensors cannot be read"):
        evaluate(config(root, "elsewhere", f"checkpoint={tmp_path / 'adapter'}", name="evaluate"))
    (tmp_path / "adapter" / "vilamp.yaml").unlink()
    with pytest.raises(ConfigError, match=r"checkpoint=.*adapter lacks vilamp\.yaml"):
        evaluate(config(root, "elsewhere", f"checkpoint={tmp_path / 'adapter'}", name="evaluate"))


def test_a_run_goes_on_with_the_adapters_of_another(root: Path, adapted: Run) -> None:
    start = ["init=run", f"init.path={adapted.folder / 'adapter'}", "lora=continue"]
    start += ["model.vision_tower.hidden_layer=-2"]
    untouched = build_model(config(root, "none", *start))
    before = weights(adapted.module.model)
    assert {name for name, weight in weights(untouched).items() if not torch.equal(weight, before[name])} == set()
    further = train(config(root, "further", *start, *SMALL[-2:]))
    assert further.metrics["val/accuracy_before"] == adapted.metrics["val/accuracy"]
    after = weights(further.module.model)
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert {f"model.{name}" for name in changed} == further.module.trained_names() and any(
        "lora_" in name for name in changed
    )
    settings = json.loads((further.folder / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(asset("tiny/language_model")) and settings["r"] == 4
    scored = evaluate(config(root, "scored_further", f"checkpoint={further.folder / 'adapter'}", name="evaluate"))
    assert scored.metrics["val/loss"] == further.metrics["val/loss"]


@pytest.mark.parametrize("lora", [[], SMALL])
def test_a_run_starts_from_what_another_merges_to(root: Path, adapted: Run, lora: list[str]) -> None:
    model = build_model(config(root, "none", "init=run", f"init.path={adapted.folder}", *lora)).eval()
    assert bool(adapter_parameters(model.language_model)) == bool(lora)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        merged, apart = (m.language_model.lm(input_ids=ids).logits for m in (model, adapted.module.model.eval()))
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-4)
    connector = {name: weight for name, weight in model.state_dict().items() if name.startswith("projector")}
    for name, weight in connector.items():
        assert torch.equal(weight, adapted.module.model.state_dict()[name])
    assert model.init_report is not None
    assert any("lora_" in name for name in model.init_report.filled)
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        merged, apart = (m.vision_tower(frames) for m in (model, adapted.module.model))
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-4)
    assert {name.split(".")[0] for name in model.init_report.kept} == {"scorer", "vision_tower", "language_model"}


def test_going_on_needs_adapters(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora=continue goes on .* init\.path names has none"):
        build_model(config(root, "none", "lora=continue"))


def test_a_run_of_another_merger_is_refused_by_name(root: Path, adapted: Run) -> None:
    start = ["init=run", f"init.path={adapted.folder}"]
    with pytest.raises(ConfigError, match=r"best\.ckpt does not fit the model: \['merger\.query_map.*use the selector"):
        build_model(config(root, "none", *start, "merger=uniform"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", r"init\.path=.* is neither a run's folder .* nor one of adapters .* nor what `vilamp export` wrote"),
        ("none.ckpt", r"init\.path=.*none\.ckpt does not exist"),
    ],
)
def test_what_is_no_run_is_named(root: Path, tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(config(root, "none", "init=run", f"init.path={tmp_path / path}"))


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"

    def write(text: str, *, then_fail: bool = False) -> None:
        def fill(place: Path) -> None:
            (place / text).write_text(text)
            if then_fail:
                raise OSError("no space")

        replace_folder(folder, fill)

    write("first")
    with pytest.raises(OSError, match="no space"):
        write("second", then_fail=True)
    assert [file.name for file in folder.iterdir()] == ["first"]
    write("third")
    assert [file.name for file in folder.iterdir()] == ["third"]
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
