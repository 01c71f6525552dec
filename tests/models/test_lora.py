"""Adapters of the language model and of the vision tower, and checkpointed layers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from small_runs import small_run
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from vilamp.build import build_model, build_optim
from vilamp.config import compose, conf_dir
from vilamp.errors import ConfigError
from vilamp.models.language_model import LanguageModel
from vilamp.models.lora import (
    Lora,
    adapted_models,
    adapter_parameters,
    adapter_tensors,
    load_adapter,
    merge_adapters,
)
from vilamp.models.video_lm import VideoLM
from vilamp.samples import IGNORED
from vilamp.training.run import evaluate, train


def build(*overrides: str) -> VideoLM:
    cfg = compose("train", ["logger=csv", *overrides])
    torch.manual_seed(0)
    model = build_model(cfg)
    build_optim(cfg).freeze(model)
    return model


def answer_loss(model: VideoLM) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of an answer to a random sequence, and the sequence, which takes a gradient."""
    generator = torch.Generator().manual_seed(1)
    sequence = torch.randn(24, model.language_model.dim, generator=generator).requires_grad_()
    labels = torch.full((24,), IGNORED)
    labels[-5:] = torch.arange(5, 10)
    return model.language_model.answer_loss([sequence], [labels]).total, sequence


def gradients(model: VideoLM) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


NEW = sorted(
    path.stem for path in (conf_dir() / "lora").glob("*.yaml") if path.stem not in ("none", "continue", "qlora")
)


def train_a_step(model: VideoLM) -> None:
    """Two steps, in fact: the first moves one of an adapter's two matrices only, because the other begins as zero."""
    for _ in range(2):
        answer_loss(model)[0].backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
                    parameter.grad = None


@pytest.mark.parametrize("kind", NEW)
def test_only_adapters_get_gradients(kind: str) -> None:
    model = build(f"lora={kind}")
    adapters = adapter_parameters(model.language_model)
    assert adapters
    answer_loss(model)[0].backward()
    assert set(gradients(model)) == {f"language_model.{name}" for name in adapters}
    assert set(adapted_models(model)) == {"language_model"} | ({"vision_tower"} if "vision" in kind else set())
    for name in ("scorer", "vision_tower", "selector"):
        part = getattr(model, name)
        trains = {key for key, parameter in part.named_parameters() if parameter.requires_grad}
        assert trains == adapter_parameters(part)


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_of_the_tower_begin_by_changing_nothing_learn_and_merge(dora: bool) -> None:
    plain, adapted = build(), build("lora=vision", "lora.dropout=0", f"lora.dora={dora}")
    each = 3 if dora else 2
    assert len(adapter_parameters(adapted.vision_tower)) == each * 6 * len(plain.vision_tower.siglip.encoder.layers)
    size = plain.vision_tower.preprocess.size
    frames = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = plain.vision_tower(frames)
    torch.testing.assert_close(adapted.vision_tower(frames), before)
    for _ in range(2):  # the first step moves one of an adapter's two matrices only
        adapted.vision_tower(frames).square().sum().backward()
        assert {name for name in gradients(adapted) if "vision_tower" in name} == {
            f"vision_tower.{name}" for name in adapter_parameters(adapted.vision_tower)
        }
        with torch.no_grad():
            for parameter in adapted.vision_tower.parameters():
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad / parameter.grad.norm().clamp(min=1e-9)
    learnt = adapted.vision_tower(frames)
    assert (learnt - before).abs().max() > 1e-3
    merge_adapters(adapted)
    assert set(adapted.state_dict()) == set(plain.state_dict())
    torch.testing.assert_close(adapted.vision_tower(frames), learnt, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", NEW)
def test_adapters_begin_by_changing_nothing_and_merge_into_what_they_have_learnt(kind: str) -> None:
    plain, adapted = build(), build(f"lora={kind}", "lora.dropout=0")
    loss = answer_loss(adapted)[0].detach()
    torch.testing.assert_close(loss, answer_loss(plain)[0].detach())
    train_a_step(adapted)
    learnt = answer_loss(adapted)[0].detach()
    assert learnt < 0.9 * loss
    merge_adapters(adapted)
    assert not adapter_parameters(adapted.language_model)
    assert set(adapted.state_dict()) == set(plain.state_dict())
    torch.testing.assert_close(answer_loss(adapted)[0].detach(), learnt, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", NEW)
def test_adapters_go_through_the_names_of_peft_and_back(kind: str) -> None:
    first, second = build(f"lora={kind}", "lora.dropout=0"), build(f"lora={kind}", "lora.dropout=0")
    train_a_step(first)
    ours, theirs = (adapted_models(model)["language_model"] for model in (first, second))
    load_adapter(theirs, adapter_tensors(ours), "adapter")
    assert torch.equal(answer_loss(second)[0], answer_loss(first)[0])
    tensors = adapter_tensors(ours)
    name = next(iter(tensors))
    with pytest.raises(ConfigError, match=r"adapter holds other adapters .* missing \['base_model\.model\."):
        load_adapter(theirs, {n: t for n, t in tensors.items() if n != name}, "adapter")
    with pytest.raises(ConfigError, match="adapter holds adapters of another size"):
        load_adapter(theirs, tensors | {name: tensors[name][..., :1]}, "adapter")


def test_settings_reach_peft() -> None:
    def scaling(*overrides: str) -> float:
        layer: Any = build(*overrides).language_model.lm.model.layers[0].self_attn.q_proj
        return layer.scaling["default"]

    assert scaling("lora=default", "lora.rank=16", "lora.alpha=8") == 8 / 16
    assert scaling("lora=rslora", "lora.rank=16", "lora.alpha=8") == 8 / 4
    dora = build("lora=dora", "lora.targets=[q_proj]").language_model
    assert sum("magnitude" in name for name in adapter_parameters(dora)) == len(dora.lm.model.layers)


def test_four_bits_need_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vilamp.models.lora.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"lora=qlora.* needs bitsandbytes: pip install 'vilamp-lightning\[qlora\]'"):
        build("lora=qlora")


def test_targets_are_endings_of_names() -> None:
    model = build("lora=default", "lora.targets=[q_proj,v_proj]")
    names = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in adapter_parameters(model.language_model)}
    assert names == {"q_proj", "v_proj"}
    with pytest.raises(ConfigError, match=r"lora\.targets=nothing is no linear layer.*there are: .*q_proj"):
        build("lora=default", "lora.targets=[q_proj,nothing]")


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"vision_rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_a_value_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    ((key, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"lora needs .* got .*{key}={value}"):
        Lora(**wrong)


@pytest.mark.parametrize("trains", ["adapters", "everything", "nothing"])
def test_checkpointed_layers_change_neither_loss_nor_gradients(trains: str) -> None:
    """Also where the language model is frozen, and gradients only go through it to what feeds it."""
    overrides = {"adapters": ["lora=default", "lora.dropout=0"], "everything": []}
    overrides["nothing"] = ["optim.lr.language_model=null"]
    results, saved = [], []
    for checkpointing in (False, True):
        model = build(*overrides[trains], f"model.language_model.gradient_checkpointing={checkpointing}")
        kept: list[int] = []
        modes = [module.training for module in model.modules()]

        def keep(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, sequence = answer_loss(model)
        assert [module.training for module in model.modules()] == modes
        saved.append(sum(kept))
        loss.backward()
        results.append((loss.detach(), {**gradients(model), "sequence": sequence.grad}))
    (loss, without), (checkpointed_loss, checkpointed) = results
    assert torch.equal(loss, checkpointed_loss)
    assert without.keys() == checkpointed.keys()
    for name, gradient in without.items():
        torch.testing.assert_close(checkpointed[name], gradient)
    assert saved[1] < saved[0] / 2, "activations of the layers are not stored"


def test_a_checkpointed_model_that_is_frozen_still_generates_with_a_cache() -> None:
    answers = []
    for checkpointing in (False, True):
        model = build("optim.lr.language_model=null", f"model.language_model.gradient_checkpointing={checkpointing}")
        sequence = torch.randn(9, model.language_model.dim, generator=torch.Generator().manual_seed(0))
        answers.append(model.language_model.generate(sequence, 6, 0))
    assert torch.equal(*answers)


@pytest.mark.filterwarnings("ignore")
def test_adapters_train_beside_weights_in_four_bits(tmp_path: Path) -> None:
    """Where bitsandbytes is: its kernel for CPUs needs widths that are multiples of 64, unlike those of model=tiny."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    config = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 256}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.05}
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**config)).save_pretrained(tmp_path)
    packed, plain = LanguageModel(str(tmp_path)), LanguageModel(str(tmp_path))
    Lora(rank=4, dropout=0, quantize=True).adapt(cast(VideoLM, SimpleNamespace(language_model=packed)))
    adapters = adapter_parameters(packed)
    for name, parameter in packed.named_parameters():
        parameter.requires_grad_(name in adapters)
    packed.to("cpu")  # which packs them, as moving to a GPU does
    layer: Any = packed.lm.model.layers[0].mlp.up_proj.base_layer
    assert isinstance(layer, bitsandbytes.nn.Linear4bit) and layer.weight.dtype == torch.uint8
    sequence, labels = torch.randn(24, 128), torch.full((24,), IGNORED)
    labels[-5:] = torch.arange(5, 10)
    first = packed.answer_loss([sequence], [labels]).total
    assert first.item() == pytest.approx(plain.answer_loss([sequence], [labels]).total.item(), rel=0.05)
    optimizer = torch.optim.Adam([p for p in packed.parameters() if p.requires_grad], 1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        packed.answer_loss([sequence], [labels]).total.backward()
        optimizer.step()
    with torch.no_grad():
        assert packed.eval().answer_loss([sequence], [labels]).total < 0.7 * first


def test_adapters_that_would_not_train_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr\.language_model=null would leave .* rate, or lora=none"):
        train(adapted_run(tmp_path, "optim.lr.language_model=null"))
    with pytest.raises(ConfigError, match=r"optim\.lr\.vision_tower=null would leave .* or lora=default, which"):
        train(adapted_run(tmp_path, "lora.vision_rank=4"))


def adapted_run(tmp_path: Path, *overrides: str, name: str = "train", folder: str = "run") -> Any:
    adapted = ["lora=default"] if name == "train" else []
    return small_run(tmp_path / folder, tmp_path / "data", *adapted, *overrides, name=name)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
def test_a_run_trains_adapters_alone_and_its_checkpoint_holds_what_trains(tmp_path: Path) -> None:
    run = train(adapted_run(tmp_path))
    start = train(adapted_run(tmp_path, "trainer.max_epochs=0", folder="untrained")).module
    trained = {name for name, parameter in run.module.named_parameters() if parameter.requires_grad}
    assert any("lora_" in name for name in trained)
    weights = nn.Module.state_dict(start)
    changed = {name for name, weight in run.module.state_dict().items() if not torch.equal(weight, weights[name])}
    assert changed == trained
    best = run.folder / "checkpoints" / "best.ckpt"
    stored = torch.load(best, weights_only=True)["state_dict"]
    assert set(stored) == trained
    scored = evaluate(adapted_run(tmp_path, f"checkpoint={best}", name="evaluate", folder="scored"))
    shared = [name for name in scored.metrics if name.startswith("val/") or name == "visual_tokens"]
    assert len(shared) > 3
    assert {name: scored.metrics[name] for name in shared} == {name: run.metrics[name] for name in shared}
