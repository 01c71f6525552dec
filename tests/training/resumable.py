"""A small run that is ended and goes on, and what must then be the same."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import torch
from launch import HERE, ended, torchrun
from own_shards import draw_clip, write_shard

KEYS = [f"s{number:02}" for number in range(11)]
EXACT = [  # everything that a continuation could get wrong: dropout, accumulation, warm-up
    "lora=default", "lora.dropout=0.3", "trainer.accumulate_grad_batches=2", "optim.warmup=0.3",
]  # fmt: skip


def write_shards(folder: Path) -> Path:
    """Two uneven shards of eleven samples, most of them text, one unusable; and one to validate on."""
    clip, colours = draw_clip(), ["red", "green", "blue"]
    samples: list[tuple[str, list[dict[str, Any]], bytes | None]] = [
        (key, [{"question": f"is {key} red?", "answer": colours[i % 3]}], clip if i in (2, 6) else None)
        for i, key in enumerate(KEYS)
    ]
    # The first batch of a step in both epochs: where no question is left, Lightning logs the loss of the batch before.
    samples[7] = (KEYS[7], samples[7][1], clip[: len(clip) // 3])
    write_shard(folder / "train-0.tar", samples[:4])
    write_shard(folder / "train-1.tar", samples[4:])
    write_shard(folder / "val.tar", samples[:3])
    return folder


def settings(shards: Path, folder: Path, *more: str) -> list[str]:
    """Two epochs over the shards, with a checkpoint after every step."""
    data = [f"data.train={shards}/train-*.tar", f"data.val={shards}/val.tar", "data.num_workers=0", "data.batch_size=1"]
    run = [
        f"hydra.run.dir={folder}",
        "trainer.max_epochs=2",
        "trainer.val_check_interval=1.0",
        "checkpoint.every_n_steps=1",
        "logger=csv",
        "report=false",
    ]
    return ["data=shards", *data, *run, "selector=uniform", "merger=uniform", *more]


def killed(notes: Path, in_batch: int, arguments: list[str], ranks: int = 1) -> None:
    """Train in processes that kill themselves in their so many-th batch; 0: never."""
    several = [f"trainer.devices={ranks}", "+trainer.strategy=ddp"] if ranks > 1 else []
    moment = f"train/{in_batch}/SIGKILL" if in_batch else "never"
    done = ended(torchrun(HERE / "driven.py", [str(notes), moment, *arguments, *several], ranks))
    expected = 0 if in_batch == 0 else 1 if ranks > 1 else -signal.SIGKILL
    assert done.returncode == expected, done.stderr


def last(folder: Path) -> dict[str, Any]:
    """The checkpoint after the last step."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def reached(folder: Path) -> tuple[int, int]:
    """The epoch from which a run goes on, and the samples of it that are behind: none before the first checkpoint."""
    if not (folder / "checkpoints" / "last.ckpt").exists():
        return 0, 0
    epoch, consumed = last(folder)["continuation"]["position"]
    return epoch, consumed


def logged(folder: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv``, without what is measured anew."""
    with (folder / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return [{k: v for k, v in row.items() if k.startswith(("train/", "val/", "step", "data/skipped"))} for row in rows]


def assert_same_end(one: Path, other: Path) -> None:
    """The same weights, bit for bit, and the same figures."""
    first, second = last(one), last(other)
    assert first["global_step"] == second["global_step"] and first["state_dict"].keys() == second["state_dict"].keys()
    assert all(torch.equal(weight, second["state_dict"][name]) for name, weight in first["state_dict"].items())
    assert logged(one) == logged(other)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    of_process = ("memory/", "throughput/", "data/decoded_by", "data/gaps")
    compared = [{k: v for k, v in m.items() if not k.startswith(of_process)} for m in metrics]
    assert compared[0] == compared[1]
    assert (one / "quarantine.jsonl").read_text() == (other / "quarantine.jsonl").read_text()
    names = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (one, other)]
    assert names[0] == names[1] == ["best.ckpt", "last.ckpt", "previous.ckpt"]
