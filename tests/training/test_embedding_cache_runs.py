"""Whole runs with an embedding cache are runs without one, but for the scorer's time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from own_shards import draw_clip, write_shard

from vilamp.config import compose
from vilamp.errors import ConfigError
from vilamp.models.scorer import ClipScorer
from vilamp.training.resume import differences
from vilamp.training.run import Run, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]
EPOCHS = 2


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos to train on, with several questions, and one to validate on; two of the three are the same file."""
    folder = tmp_path_factory.mktemp("shards")
    asked = [{"question": f"what is {thing}?", "answer": "grey"} for thing in ("it", "red")]
    light, dark = draw_clip(), draw_clip(7)
    write_shard(folder / "train.tar", [("light", asked, light), ("dark", asked, dark)])
    write_shard(folder / "val.tar", [("again", asked, dark)])
    return folder


@pytest.fixture
def run(shards: Path, tmp_path: Path) -> Any:
    """Train for two epochs."""

    def trained(folder: str, *overrides: str) -> Run:
        own = [f"data.{split}={shards / split}.tar" for split in ("train", "val")]
        return train(_config(tmp_path / folder, *own, *overrides))

    return trained


def _config(folder: Path, *overrides: str) -> DictConfig:
    common = [f"paths.output_dir={folder}", "data=shards", "data.num_workers=0", "logger=csv", "num_keyframes=3"]
    epochs = [f"trainer.max_epochs={EPOCHS}", "trainer.val_check_interval=1.0"]
    return compose("train", [*common, "report=false", *epochs, *overrides])


def _cached(folder: Path) -> str:
    return f"data.embedding_cache={folder}"


def _refuse(*_: object) -> None:
    raise AssertionError("the scorer was asked")


def _of_cache(run: Run) -> dict[str, float]:
    return {name.removeprefix("cache/"): v for name, v in run.metrics.items() if name.startswith("cache/") and v}


def test_a_second_run_asks_the_scorer_nothing_and_ends_with_the_same_weights(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run("plain")
    assert not [name for name in plain.metrics if name.startswith("cache/")]
    first = run("first", _cached(tmp_path / "kept"))
    # Three validations, two epochs of two videos; each of the two files is embedded once.
    assert _of_cache(first) == {"misses": 2, "hits": 3 * 1 + EPOCHS * 2 - 2}
    assert len(list((tmp_path / "kept").rglob("*.safetensors"))) == 2
    monkeypatch.setattr(ClipScorer, "embed_frames", _refuse)
    again = run("again", _cached(tmp_path / "kept"), "data.num_workers=1")
    assert _of_cache(again) == {"hits": 3 * 1 + EPOCHS * 2}
    other = run("other", _cached(tmp_path / "kept"), "selector=attention")
    assert _of_cache(other) == {"hits": 3 * 1 + EPOCHS * 2}
    with pytest.raises(AssertionError, match="the scorer was asked"):
        run("denser", _cached(tmp_path / "kept"), "data.fps=2")
    for cached in (first, again):
        assert cached.metrics["val/loss"] == plain.metrics["val/loss"]
        for (name, one), (_, two) in zip(
            cached.module.state_dict().items(), plain.module.state_dict().items(), strict=True
        ):
            assert torch.equal(one, two), name


def test_a_damaged_entry_is_made_anew_said_once_and_counted(
    run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run("first", _cached(tmp_path / "kept"))
    for entry in (tmp_path / "kept").rglob("*.safetensors"):
        content = bytearray(entry.read_bytes())
        content[-5] ^= 1
        entry.write_bytes(content)
    with caplog.at_level(logging.WARNING, "vilamp"):
        again = run("again", _cached(tmp_path / "kept"))
    assert _of_cache(again) == {"rebuilt": 2, "hits": 3 * 1 + EPOCHS * 2 - 2}
    assert len([line for line in caplog.messages if "an entry is made anew" in line]) == 1
    assert again.metrics["val/loss"] == first.metrics["val/loss"]


def test_a_folder_that_takes_nothing_costs_no_run(run: Any, tmp_path: Path) -> None:
    first = run("first", _cached(tmp_path / "kept"))
    (scorer,) = (tmp_path / "kept").iterdir()
    scorer.rename(tmp_path / "elsewhere")
    scorer.write_bytes(b"")  # where the folder of the entries has to be
    again = run("again", _cached(tmp_path / "kept"))
    assert again.metrics["val/loss"] == first.metrics["val/loss"]
    assert again.metrics["cache/unstored"] == 3 * 1 + EPOCHS * 2 and again.metrics["cache/hits"] == 0


def test_a_scorer_that_trains_is_not_cached(run: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.embedding_cache=.*set optim\.lr\.scorer=null"):
        run("trains", _cached(tmp_path / "kept"), "optim.lr.scorer=1e-5")
    assert not (tmp_path / "kept").exists()


def test_a_cache_makes_no_other_run() -> None:
    without, given = ({"data": {"embedding_cache": folder, "fps": 1}} for folder in (None, "kept"))
    assert list(differences(without, given)) == []
