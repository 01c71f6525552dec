"""Patterns in, batches out: through torch's loader and Lightning's trainer."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from tars import annotation, write_tar
from test_dataset import encode

from vilamp.data.module import VideoDataModule
from vilamp.data.needle import NeedleSet
from vilamp.data.order import epoch_order
from vilamp.decoders.auto import AutoDecoder
from vilamp.errors import ConfigError, DataError
from vilamp.samples import Batch
from vilamp.testing.barcodes import write_video


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training shards of seven samples in all, one of them broken, and a validation shard of three."""
    folder = tmp_path_factory.mktemp("shards")
    clip = write_video(list(range(3)), Fraction(1, 1))
    members = {f"{key}.{name}": content for key in "abcd" for name, content in
               (("json", annotation(f"{key}?", "and?")), ("mp4", clip))}  # fmt: skip
    write_tar(folder / "train-0.tar", members.items())
    text = [(f"{key}.json", annotation(f"{key}?", video=None)) for key in "ef"]
    write_tar(folder / "train-1.tar", [*text, ("g.json", annotation()), ("g.mp4", b"noise"), ("h.mp4", clip)])
    write_tar(folder / "val-0.tar", [(f"{key}.json", annotation(f"{key}?", video=None)) for key in "xyz"])
    write_tar(folder / "empty.tar", [])
    return folder


def _module(shards: Path, **settings: Any) -> VideoDataModule:
    paths = {"train": f"{shards}/train-{{0,1}}.tar", "val": str(shards / "val-*.tar")}
    return VideoDataModule(**({"batch_size": 2, "seed": 3} | paths | settings), encode=encode, decoder=AutoDecoder())


def _built(*patterns: Any) -> VideoDataModule:
    return VideoDataModule(*patterns, encode=encode, decoder=AutoDecoder())


def _keys(batch: Batch) -> list[str]:
    return [question.key[0] for question in batch.questions] + [skip.key for skip in batch.skipped]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_come_in_the_order_of_seed_and_epoch_whatever_the_workers(shards: Path, num_workers: int) -> None:
    module = _module(shards, num_workers=num_workers)
    module.setup()
    loader = module.train_dataloader()
    for epoch in (0, 1):
        loader.batch_sampler.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        batches = list(loader)
        order = ["abcdefg"[number] for number in epoch_order(7, 3, epoch)]
        assert [sorted(set(_keys(batch))) for batch in batches] == [sorted(order[i : i + 2]) for i in range(0, 7, 2)]
        assert sum(len(batch.questions) for batch in batches) == 4 * 2 + 2
        assert [(skip.key, skip.reason) for batch in batches for skip in batch.skipped] == [("g", "decode")]


def test_validation_is_in_the_order_of_the_shards(shards: Path) -> None:
    module = _module(shards)
    module.setup()
    loader = module.val_dataloader()
    assert [key for batch in loader for key in _keys(batch)] == ["x", "y", "z"]


def test_max_questions_holds_for_training_only(shards: Path) -> None:
    module = _module(shards, max_questions=1, val=str(shards / "train-0.tar"), train=str(shards / "train-1.tar"))
    module.setup()
    assert sum(len(batch.questions) for batch in module.val_dataloader()) == 8
    module = _module(shards, max_questions=1)
    module.setup()
    assert sum(len(batch.questions) for batch in module.train_dataloader()) == 6


def test_what_is_no_sample_is_known_after_setup(shards: Path) -> None:
    module = _module(shards)
    assert module.skips == []
    module.setup("fit")
    module.setup("validate")
    assert [(skip.key, skip.reason) for skip in module.skips] == [("h", "missing_member")]


class _Recorder(LightningModule):
    """A model that learns nothing and writes down what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.epochs: list[list[str]] = []

    def on_train_epoch_start(self) -> None:
        self.epochs.append([])

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        self.epochs[-1] += sorted(set(_keys(batch)))
        return self.weight.sum()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        assert batch.questions

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_lightning_goes_through_every_epoch_in_its_order(shards: Path, tmp_path: Path) -> None:
    recorder = _Recorder()
    trainer = Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(recorder, _module(shards, batch_size=1))
    expected = [["abcdefg"[number] for number in epoch_order(7, 3, epoch)] for epoch in range(3)]
    assert recorder.epochs == expected


def test_without_validation_data(shards: Path) -> None:
    module = _module(shards, val=None)
    module.setup()
    assert module.val_dataloader() == []


def test_shards_in_both_splits_are_warned_of(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = _module(shards, val=f"{shards}/../{shards.name}/train-0.tar")
    with caplog.at_level(logging.WARNING, "vilamp"):
        module.setup()
    assert "1 shard(s) of data.val are also in data.train" in caplog.text


def test_validation_samples_with_one_key_are_warned_of(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = write_tar(tmp_path / "other.tar", [("y.json", annotation("?", video=None)), ("w.json", annotation())])
    _module(shards, val=str(shards / "val-0.tar"), train=str(other)).setup()
    assert "key(s)" not in caplog.text
    _module(shards, val=[str(shards / "val-0.tar"), str(other)]).setup()
    assert "data.val: 1 key(s) are of more than one sample, for example y: val_answers.jsonl" in caplog.text


def test_each_split_given_replaces_one_of_the_generated(shards: Path, tmp_path: Path) -> None:
    made = NeedleSet(
        tmp_path, 1, 1, 3, 3, events=1, look_alikes=1, questions_per_video=1, num_workers=0, progress=False
    )
    both = VideoDataModule(
        str(shards / "train-0.tar"), str(shards / "val-0.tar"), made, encode=encode, decoder=AutoDecoder()
    )
    both.prepare_data()
    assert not made.folder.exists()
    half = _built(None, str(shards / "val-0.tar"), made)
    half.prepare_data()
    half.setup()
    assert [sample.key for sample in half.indices["train"].samples] == ["train-000000"]
    assert [sample.key for sample in half.indices["val"].samples] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"batch_size": 0}, ConfigError, r"data\.batch_size must be at least 1, got 0"),
        ({"num_workers": -1}, ConfigError, r"data\.num_workers must be at least 0, got -1"),
        ({"max_questions": 0}, ConfigError, r"data\.max_questions must be at least 1, or null"),
        ({"fps": -1.0}, ConfigError, r"data\.fps must be positive, got -1"),
        ({"train": "nothing-*.tar"}, DataError, r"data\.train: no file matches"),
        ({"val": "nothing-*.tar"}, DataError, r"data\.val: no file matches"),
        ({"train": []}, DataError, r"data\.train names no shard"),
        ({"train": "EMPTY"}, DataError, r"data\.train: no sample in 1 shard.*they are empty"),
    ],
)
def test_what_cannot_be_read_is_named(shards: Path, settings: dict[str, Any], error: type, message: str) -> None:
    if settings.get("train") == "EMPTY":
        settings = {"train": str(shards / "empty.tar")}
    with pytest.raises(error, match=message):
        _module(shards, **settings).setup()


def test_sets_are_mixed_by_weight(shards: Path) -> None:
    old = {"shards": str(shards / "val-*.tar"), "weight": 0.5}
    module = _module(shards, val=None, mix={"old": old})
    module.setup()
    total = len(module.indices["train"].samples)
    assert module.mixed == [(3, round(0.5 * (total - 3)))]
    plain = _module(shards, val=None)
    plain.setup()
    assert module.digests() != plain.digests(), "a run does not go on with another mixture"
    places = [place.number for batch in module.train_batches() for place in batch]
    assert sorted(number for number in places if number < total - 3) == list(range(total - 3))
    assert sum(number >= total - 3 for number in places) == module.mixed[0].taken
    read = {key for batch in module.train_dataloader() for key in _keys(batch)}
    assert {"a", "e"} <= read and read & set("xyz")
    assert "mix.old" not in module.indices and set(module.indices) == {"train"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shards": "x.tar"}, r"data\.mix\.old needs a positive weight"),
        ({"shards": "x.tar", "weight": 0}, r"data\.mix\.old needs a positive weight"),
        ({"shards": "x.tar", "weight": 1, "pattern": "y"}, r"data\.mix\.old needs .*pattern"),
        ({"weight": 1.0}, r"data\.mix\.old\.shards names no shards.*~data\.mix\.old leaves"),
        ({"shards": "none-*.tar", "weight": 1}, r"data\.mix\.old\.shards: no file matches"),
    ],
)
def test_what_is_wrong_with_a_mixture_is_named(shards: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        _module(shards, mix={"old": fields})


def test_validating_on_what_is_mixed_in_is_told(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    _module(shards, mix={"old": {"shards": str(shards / "val-*.tar"), "weight": 1}}).setup()
    assert "are also in data.train" in caplog.text
