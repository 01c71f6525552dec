"""The experiments that ship, at tiny size: LoRA on a domain, the three stages in turn, the lesson on long videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

import vilamp
from vilamp.build import build_optim
from vilamp.config import compose, conf_dir
from vilamp.data.needle import NeedleSet
from vilamp.training.parts import trained_share, what_trains
from vilamp.training.run import Run, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]
FEW: dict[str, Any] = {"train_videos": 4, "val_videos": 2, "min_seconds": 10, "max_seconds": 16, "events": 2}
FEW |= {"look_alikes": 1, "questions_per_video": 4, "num_workers": 1, "videos_per_shard": 2, "progress": False}
STAGES = {"stage1_pretrain": None, "stage2_short": "captions", "stage3_long": "short"}
"""Experiment -> the set that it mixes in."""


def test_every_experiment_is_run_here() -> None:
    assert {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")} == {
        "lora_domain",
        "needle_long",
        *STAGES,
    }


def test_lora_on_a_domain_trains_less_than_three_in_a_hundred_weights_and_sees_the_old_data_too(tmp_path: Path) -> None:
    few = [f"data.generate.{name}={value}" for name, value in FEW.items()]
    common = [f"paths.output_dir={tmp_path / 'run'}", f"paths.data_dir={tmp_path / 'data'}", "logger=csv"]
    small = ["data.num_workers=0", "trainer.max_epochs=1", "num_keyframes=3"]
    run = train(compose("train", ["experiment=lora_domain", *common, *few, *small]))
    assert trained_share(what_trains(run.module.model, run.module.optim)) < 0.03
    assert (run.folder / "adapter" / "adapter_model.safetensors").is_file()
    assert run.data.mixed == [(4, 2)]
    shards = {Path(sample.shard).parent.name for sample in run.data.indices["train"].samples}
    assert len(shards) == 2, "two kinds of video"


@pytest.fixture(scope="module")
def needles(tmp_path_factory: pytest.TempPathFactory) -> NeedleSet:
    made = NeedleSet(tmp_path_factory.mktemp("stages"), **FEW)
    made.prepare()
    return made


def stage(needles: NeedleSet, folder: Path, name: str, before: Path | None) -> DictConfig:
    overrides = [f"experiment={name}", "model=tiny", "trainer=cpu", "logger=csv", "num_keyframes=3"]
    overrides += [f"paths.output_dir={folder / name}", f"paths.data_dir={folder}", "data.num_workers=0"]
    shards = needles.patterns()
    overrides += [f"data.train={shards['train'][:1]}", f"data.val={shards['val']}"]
    overrides += ["init=parts"] if before is None else [f"init.path={before}"]
    mixed = STAGES[name]
    return compose("train", [*overrides, *([f"data.mix.{mixed}.shards={shards['train'][1:]}"] if mixed else [])])


def test_each_stage_begins_where_the_one_before_ended(needles: NeedleSet, tmp_path: Path) -> None:
    before: Run | None = None
    for name, mixed in STAGES.items():
        cfg = stage(needles, tmp_path, name, None if before is None else before.folder)
        rates = build_optim(cfg).lr
        assert (rates["vision_tower"], rates["language_model"], rates["merger"], rates["projector"]) == (
            2e-6,
            *[1e-5] * 3,
        )
        run = train(cfg)
        assert run.trainer.accumulate_grad_batches == 4 and len(run.data.mixed) == (mixed is not None)
        if before is not None:
            assert run.metrics["val/accuracy_before"] == before.metrics["val/accuracy"]
            assert run.module.model.init_report is not None
            assert {f"model.{key}" for key in run.module.model.init_report.filled} == before.module.trained_names()
        ours = run.module.model.state_dict()
        assert any(key.startswith("model.vision_tower") for key in run.module.trained_names())
        assert all(torch.isfinite(weight).all() for weight in ours.values())
        before = run


def test_the_lesson_on_long_videos_goes_on_from_a_run_and_its_settings_come_with_it(tmp_path: Path) -> None:
    few = [f"data.generate.{name}={value}" for name, value in FEW.items()]
    common = [*few, f"paths.data_dir={tmp_path / 'data'}", "logger=csv", "data.num_workers=0", "report=false"]
    before = train(compose("train", [f"paths.output_dir={tmp_path / 'before'}", *common, "data.batch_size=2"]))
    lesson = ["experiment=needle_long", f"init.path={before.folder}", f"paths.output_dir={tmp_path / 'long'}"]
    run = train(compose("train", [*lesson, *common, "data.generate.crowd=4"]))
    assert run.module.model.init_report is not None
    assert {f"model.{key}" for key in run.module.model.init_report.filled} == before.module.trained_names()
    plans = [run.data.generate.plan("train", i) for i in range(4)]
    assert any(plan.crowd for plan in plans)
    model = vilamp.load(run.folder).model
    assert (model.num_keyframes, model.merged_step) == (12, 0.125)
    assert model.language_model.lm.config.rope_parameters["factor"] == 64
