"""Whole runs from the configuration, small: every combination, the run's folder, evaluation, repetition, bad data."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from own_shards import draw_clip, write_shard
from small_runs import small_run

from vilamp import locations
from vilamp.config import compose, conf_dir
from vilamp.errors import ConfigError, DataError
from vilamp.locations import asset
from vilamp.report.samples import read_samples
from vilamp.samples import Batch, Question
from vilamp.training.answers import read_right
from vilamp.training.run import Run, evaluate, train

SELECTORS = sorted(path.stem for path in (conf_dir() / "selector").glob("*.yaml"))
MERGERS = sorted(path.stem for path in (conf_dir() / "merger").glob("*.yaml"))
# Python's own complaints about how Lightning is used here are in the hands of the run; the tests look at results.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the needle videos of this file are made, once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def config(data_dir: Path, tmp_path: Path) -> Any:
    """Compose a run of a few short videos into the test's folder."""

    def composed(*overrides: str, name: str = "train", folder: str = "run") -> DictConfig:
        videos = ["data.generate.train_videos=6", "data.generate.max_seconds=24", "data.batch_size=3"]
        return small_run(tmp_path / folder, data_dir, *(videos if name == "train" else []), *overrides, name=name)

    return composed


@pytest.mark.parametrize(
    ("selector", "merger"),
    # As models all pairs train in tests/models/test_variants.py; here, as whole runs, each part does once by default.
    [
        pytest.param(selector, merger, marks=[] if i % len(SELECTORS) == j else [pytest.mark.soak])
        for i, merger in enumerate(MERGERS)
        for j, selector in enumerate(SELECTORS)
    ],
)
def test_every_selector_trains_with_every_merger(config: Any, selector: str, merger: str) -> None:
    run = train(config(f"selector={selector}", f"merger={merger}"))
    assert run.trainer.global_step == 2
    assert all(math.isfinite(value) for value in run.metrics.values()), run.metrics
    assert 0 <= run.metrics["val/accuracy"] <= 1 and 0 <= run.metrics["val/keyframe_recall"] <= 1
    checkpoint = torch.load(run.folder / "checkpoints" / "best.ckpt", weights_only=True)
    start = dict(train_nothing(config, f"selector={selector}", f"merger={merger}").module.state_dict())
    frozen = [name for name in start if name.startswith(("model.scorer.", "model.selector.", "model.vision_tower."))]
    assert not set(frozen) & set(checkpoint["state_dict"])
    changed = {name for name, weight in checkpoint["state_dict"].items() if not torch.equal(weight, start[name])}
    assert changed == set(start) - set(frozen)


def train_nothing(config: Any, *overrides: str) -> Run:
    """The run's objects as they are before the first step."""
    return train(config(*overrides, "trainer.max_epochs=0", folder="untrained"))


def test_the_folder_holds_what_a_run_promises(config: Any) -> None:
    run = train(config("logger=wandb", "trainer.max_epochs=2", "report=true"))
    written = json.loads((run.folder / "metrics.json").read_text())
    assert written == run.metrics
    promised = {"val/accuracy", "val/accuracy/colour", "val/accuracy_before", "val/keyframe_recall", "val/loss"}
    promised |= {"visual_tokens", "memory/peak_rss_gib", "data/skipped"}
    promised |= {"throughput/frames_per_s", "throughput/videos_per_s"}
    promised |= {"memory/peak_tree_gib"} if sys.platform == "linux" else set()
    assert promised <= set(written)
    with (run.folder / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {"train/loss", "train/accuracy", *promised - {"val/accuracy_before"}} <= set(rows[0])
    assert len([row for row in rows if row["train/loss"]]) == 4
    assert len([row for row in rows if row["val/accuracy"]]) == 3
    assert (run.folder / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert "Run run" in (run.folder / "report.html").read_text()
    assert len([row for row in rows if row["val/accuracy_by_depth/0.0-0.2"]]) == 3
    stored = OmegaConf.load(run.folder / "config.yaml")
    assert stored.seed == 0 and stored.data.generate.train_videos == 6
    answers = list(read_right(run.folder).values())
    assert len(answers) == written["val/questions"] == 16
    assert sum(answers) / 16 == written["val/accuracy"], "those of the best validation"
    offline = list((run.folder / "wandb").glob("offline-run-*"))
    assert len(offline) == 1 and list(offline[0].glob("*.wandb"))
    for name in ("learning", "by_kind", "by_depth", "memory", "costs"):
        assert list(offline[0].glob(f"files/media/images/report/{name}*.png"))
    (table,) = offline[0].glob("files/media/table/report/samples*.table.json")
    shown = read_samples(run.folder).samples
    assert [row[:4] for row in json.loads(table.read_text())["data"]] == [
        [one.question, one.answer, one.right_answer, one.exact] for one in shown
    ]


def test_a_seed_repeats_a_run_and_another_does_not(config: Any) -> None:
    def losses(folder: str, *overrides: str) -> list[str]:
        run = train(config("selector=random", "merger=random", *overrides, folder=folder))
        with (run.folder / "metrics.csv").open() as lines:
            return [row["train/loss"] + row["val/loss"] for row in csv.DictReader(lines)]

    first = losses("first")
    assert losses("again") == first
    assert losses("other", "seed=1") != first
    assert losses("workers", "data.num_workers=2") == first


def test_the_chunk_size_changes_no_result(config: Any) -> None:
    large, small = (train(config(f"model.chunk_size={size}", folder=f"chunks{size}")) for size in (64, 5))
    assert small.metrics["val/loss"] == pytest.approx(large.metrics["val/loss"], rel=1e-3)
    assert small.metrics["visual_tokens"] == large.metrics["visual_tokens"]


def test_evaluation_repeats_the_figures_of_the_run(config: Any) -> None:
    run = train(config("selector=random", "merger=attention", "trainer.max_epochs=2"))
    best = run.folder / "checkpoints" / "best.ckpt"
    scored = evaluate(config(f"checkpoint={best}", name="evaluate", folder="scored"))
    shared = [name for name in scored.metrics if name.startswith("val/") or name == "visual_tokens"]
    assert len(shared) > 5
    assert {name: scored.metrics[name] for name in shared} == {name: run.metrics[name] for name in shared}
    assert read_right(scored.folder) == read_right(run.folder)
    assert json.loads((scored.folder / "metrics.json").read_text()) == scored.metrics


def test_a_checkpoint_says_nothing_of_where_things_lay(
    config: Any, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run's package and data may be gone: evaluation takes those of the machine that it runs on."""
    run = train(config("+paths.mine=somewhere"))
    best = tmp_path / "carried.ckpt"
    (run.folder / "checkpoints" / "best.ckpt").rename(best)
    stored = torch.load(best, weights_only=True)["config"]
    assert stored["model"]["scorer"]["path"] == "${asset:tiny/scorer}"
    assert stored["data"]["generate"]["root"] == "${paths.data_dir}/needle"
    assert OmegaConf.to_container(OmegaConf.load(run.folder / "config.yaml")) == stored
    del stored["paths"]
    assert str(data_dir) not in str(stored) and str(asset("")) not in str(stored)
    there = tmp_path / "other machine"
    shutil.copytree(data_dir, there / "data")
    shutil.copytree(asset("tiny"), there / "vilamp" / "assets" / "tiny")
    cfg = config(f"checkpoint={best}", f"paths.data_dir={there / 'data'}", name="evaluate", folder="scored")
    monkeypatch.setattr(locations, "PACKAGE", there / "vilamp")
    scored = evaluate(cfg)
    assert scored.metrics["val/loss"] == run.metrics["val/loss"]
    assert scored.data.indices["val"].samples[0].shard.startswith(str(there))
    assert scored.module.model.language_model.tokenizer == str(there / "vilamp" / "assets" / "tiny" / "language_model")
    assert scored.module.config["paths"]["mine"] == "somewhere"


def test_evaluation_follows_the_variant_of_the_run_unless_a_part_is_named(config: Any) -> None:
    run = train(config("variant=release", "num_keyframes=6", "selector.tau=0.2"))
    best = f"checkpoint={run.folder / 'checkpoints' / 'best.ckpt'}"
    scored = evaluate(config(best, name="evaluate", folder="scored"))
    assert scored.metrics["val/loss"] == run.metrics["val/loss"]
    assert scored.metrics["visual_tokens"] == run.metrics["visual_tokens"]
    own = evaluate(config(best, "selector=differential", "selector.tau=0.2", name="evaluate", folder="own"))
    assert own.metrics["visual_tokens"] == run.metrics["visual_tokens"], "six keyframes, the places were filled"
    strict = ["variant=paper", "selector=differential", "selector.tau=0.2"]
    paper = evaluate(config(best, *strict, name="evaluate", folder="paper"))
    assert paper.metrics["visual_tokens"] < run.metrics["visual_tokens"], "fewer keyframes"
    with pytest.raises(ConfigError, match=r"the variant changes nothing by itself.*selector=differential"):
        evaluate(config(best, "variant=paper", name="evaluate", folder="alone"))


def test_a_checkpoint_from_before_the_variants_is_scored_as_the_paper_has_it(config: Any, tmp_path: Path) -> None:
    run = train(config())
    checkpoint = torch.load(run.folder / "checkpoints" / "best.ckpt", weights_only=True)
    stored = checkpoint["config"]
    del stored["variant"], stored["model"]["anchor"], stored["model"]["projector"]["newline"]
    for key in ("maps", "learn_alpha", "space"):
        del stored["merger"][key]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    for overrides in ([], ["selector=differential"]):
        scored = evaluate(config(f"checkpoint={tmp_path / 'old.ckpt'}", *overrides, name="evaluate", folder="old"))
        assert scored.metrics["val/loss"] == run.metrics["val/loss"]


def test_evaluation_on_other_shards_takes_the_rest_from_the_run(config: Any, clip: bytes, tmp_path: Path) -> None:
    run = train(config("selector=uniform", "merger=uniform"))
    write_shard(tmp_path / "own.tar", [("a", [{"question": "what?", "answer": "grey"}], clip)])
    overrides = [
        f"checkpoint={run.folder / 'checkpoints' / 'best.ckpt'}",
        "data=shards",
        f"data.val={tmp_path}/own.tar",
    ]
    scored = evaluate(config(*overrides, "data.num_workers=0", name="evaluate", folder="own"))
    assert "val/accuracy/other" in scored.metrics and scored.module.config["data"]["frame_size"] == 96
    again = evaluate(config(*overrides, "model=tiny", "data.num_workers=0", name="evaluate", folder="own"))
    assert again.metrics == scored.metrics


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_checkpoint_is_named(config: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "some.ckpt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"some\.ckpt cannot be read"):
        evaluate(config(f"checkpoint={tmp_path / 'some.ckpt'}", name="evaluate"))


def test_evaluation_refuses_what_is_no_checkpoint_of_ours(config: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        evaluate(config(f"checkpoint={tmp_path / 'none.ckpt'}", name="evaluate"))
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ConfigError, match="holds no configuration"):
        evaluate(config(f"checkpoint={tmp_path / 'foreign.ckpt'}", name="evaluate"))
    run = train(config("merger=uniform"))
    best = run.folder / "checkpoints" / "best.ckpt"
    with pytest.raises(ConfigError, match=r"does not fit the configuration: missing .*merger"):
        evaluate(config(f"checkpoint={best}", "merger=differential", name="evaluate", folder="misfit"))


@pytest.fixture(scope="module")
def clip() -> bytes:
    """Eight seconds of H.264."""
    return draw_clip()


def test_own_shards_with_text_alone_many_questions_and_a_broken_video(config: Any, clip: bytes, tmp_path: Path) -> None:
    asked = [
        {"question": "what is it?", "answer": "grey"},
        {"question": "is it red?", "answer": "no", "kind": "yes-no"},
    ]
    samples = [("both", asked, clip), ("text", asked[:1], None), ("broken", asked, clip[: len(clip) // 3])]
    write_shard(tmp_path / "train-0.tar", [*samples, ("long", [{"question": "a " * 200, "answer": "b"}], clip)])
    write_shard(tmp_path / "val-0.tar", samples[:2])
    own = ["data=shards", f"data.train={tmp_path}/train-*.tar", f"data.val={tmp_path}/val-*.tar"]
    cfg = compose(
        "train",
        [f"paths.output_dir={tmp_path / 'run'}", *own, "data.num_workers=0", "logger=csv", "trainer.max_epochs=2",
         "data.max_skip_rate=1"],
    )  # fmt: skip
    run = train(cfg)
    assert run.trainer.global_step == 8  # a step whose sample was skipped is still a step
    assert run.metrics["data/skipped/decode"] == 1
    assert run.metrics["data/skipped/too_long"] == 1
    assert run.metrics["data/decoded_by/pyav"] == 2 + 5  # "both" in two epochs, and in five validations
    assert run.metrics["data/gaps"] == 0
    rows = [json.loads(line) for line in (run.folder / "quarantine.jsonl").read_text().splitlines()]
    assert {(row["key"].split("/")[0], row["reason"]) for row in rows} == {("broken", "decode"), ("long", "too_long")}
    assert {"val/accuracy/other", "val/accuracy/yes-no"} <= set(run.metrics)


def test_a_run_that_skips_too_much_stops_and_says_why(config: Any, clip: bytes, tmp_path: Path) -> None:
    asked = [{"question": "what is it?", "answer": "grey"}]
    good, bad = [(f"good{i}", asked, clip) for i in range(2)], [(f"bad{i}", asked, clip[:99]) for i in range(2)]
    write_shard(tmp_path / "train.tar", [*good, *bad])
    write_shard(tmp_path / "val.tar", good)
    own = ["data=shards", f"data.train={tmp_path}/train.tar", f"data.val={tmp_path}/val.tar", "data.num_workers=0"]
    folder = tmp_path / "run"
    cfg = compose("train", [f"paths.output_dir={folder}", *own, "logger=csv", "trainer.max_epochs=2"])
    with pytest.raises(
        DataError, match=r"2 of 4 samples of data\.train .*50\.0%.*0\.01.*decode 2; .*quarantine\.jsonl"
    ):
        train(cfg)
    assert len((folder / "quarantine.jsonl").read_text().splitlines()) == 2


def test_shards_without_validation_train_to_the_end(config: Any, clip: bytes, tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", [("a", [{"question": "what?", "answer": "grey"}], clip)])
    own = ["data=shards", f"data.train={tmp_path}/train-0.tar", "data.val=null", "data.num_workers=0", "logger=csv"]
    run = train(compose("train", [f"paths.output_dir={tmp_path / 'run'}", *own, "trainer.max_epochs=1"]))
    assert run.trainer.global_step == 1
    assert list((run.folder / "checkpoints").glob("*.ckpt"))
    assert not [name for name in run.metrics if name.startswith("val/")]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train=no/such-*.tar"], r"data\.train.*no/such-\*\.tar"),
        (["num_keyframes=0"], "num_keyframes.*at least 1"),
        (["data.max_frames=100000"], r"data\.max_frames=100000 frames can become"),
        (["optim.lr.projector=-1"], r"optim\.lr\.projector=-1 must be positive"),
        (["+optim.lr.adapter=1e-3"], r"unknown \['adapter'\]"),
        (["logger.mode=sometimes"], r"logger\.mode=sometimes must be one of"),
        (["data.fps=0"], r"data\.fps"),
        (["selector.fill_up=no"], r"selector\.fill_up must be true or false, got 'no'"),
        (["selector.tau=null"], r"selector\.tau is a cosine"),
        (["model.chunk_size=1.5"], r"chunk_size must be a whole number, got 1\.5"),
        (["data.max_frames=2.5"], r"data\.max_frames must be a whole number, got 2\.5"),
        (["optim.betas=[2,3]"], r"optim\.betas"),
        (["optim.weight_decay=-1"], r"optim\.weight_decay"),
        (["model.dtype=float8"], r"model\.dtype=float8 must be one of"),
        (["trainer.max_epochs=-1"], r"trainer\.max_steps"),
        (["model.vision_tower.hidden_layer=-9"], r"hidden_layer=-9 does not exist"),
        (["model.scorer.path=/no/such/folder"], "/no/such/folder"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_setting_that_cannot_be_is_named(config: Any, overrides: list[str], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        train(config(*overrides))


def test_a_run_that_ends_before_its_first_validation_reports_the_weights_that_it_trained(config: Any) -> None:
    run = train(config("trainer.max_steps=1"))
    assert run.metrics["step"] == 1
    best = run.folder / "checkpoints" / "best.ckpt"
    scored = evaluate(config(f"checkpoint={best}", name="evaluate", folder="scored"))
    assert scored.metrics["val/loss"] == run.metrics["val/loss"]


def test_what_trains_is_float32_and_the_rest_as_set(config: Any) -> None:
    model = train(config("model.dtype=bfloat16", "optim.lr.language_model=null", "trainer.max_epochs=0")).module.model
    types = {name: {p.dtype for p in part.parameters()} for name, part in model.named_children()}
    assert types["language_model"] == types["vision_tower"] == {torch.bfloat16}
    assert types["scorer"] == types["merger"] == types["projector"] == {torch.float32}
    run = train(config("model.dtype=bfloat16", "optim.lr.language_model=null", folder="trained"))
    assert run.trainer.global_step == 2 and math.isfinite(run.metrics["val/loss"])


@pytest.mark.parametrize("skipped", [False, True])
def test_every_weight_that_trains_has_a_gradient_without_a_video_too(config: Any, skipped: bool) -> None:
    """Else the ranks that have one would wait for it forever."""
    run = train(config("trainer.max_epochs=0"))
    encoded = run.encode(Question("what is red?", "circle", "what is red?"), "text/0", False, 0)
    run.module.log = lambda *_, **__: None  # type: ignore[method-assign]
    run.module.training_step(Batch([], [], []) if skipped else Batch([], [encoded], [-1]), 0).backward()
    trained = {name: p.grad for name, p in run.module.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in trained} == {"merger", "projector", "language_model"}
    assert all(gradient is not None for gradient in trained.values())
    if not skipped:
        assert any(bool(gradient.any()) for gradient in trained.values() if gradient is not None)


def test_more_keyframes_than_frames_keeps_every_frame(config: Any) -> None:
    run = train(config("num_keyframes=100", "selector=uniform"))
    assert run.metrics["val/keyframe_recall"] == 1
