"""Two processes of one run, which meet over gloo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from launch import CPU, HERE, ended, ranks_alone, torchrun
from own_shards import draw_clip, write_shard
from resumable import last, settings, write_shards

from vilamp.data.order import epoch_order
from vilamp.training.answers import read_right

LEFT = {"checkpoints", "config.yaml", "metrics.csv", "metrics.json", "quarantine.jsonl", "timeline.png", "wandb"}
LEFT |= {"report", "report.html", "samples.json", "val_answers.jsonl"}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_with_unequal_samples_train_one_model_and_tell_every_skip_once(tmp_path: Path, strategy: str) -> None:
    asked, clip = [{"question": "what is it?", "answer": "grey"}], draw_clip()
    broken = clip[: len(clip) // 3]
    # The order of epoch 0 gives its places to the ranks in turn: four to the first and three to the second, which sees
    # text where the other has videos, and in the last step nothing at all.
    kinds = ["video", "text", "broken", "text", "video", "broken", "video"]
    samples = {
        int(number): (f"{place}-{kind}", asked, {"video": clip, "broken": broken, "text": None}[kind])
        for place, (number, kind) in enumerate(zip(epoch_order(7, 0, 0), kinds, strict=True))
    }
    write_shard(tmp_path / "train.tar", [samples[i] for i in range(7)])
    write_shard(tmp_path / "val.tar", [("v0", asked, clip), ("v1-broken", asked, broken), ("v2", asked, clip)])
    arguments = [
        "data=shards",
        "data.num_workers=0",
        *(f"data.{name}={tmp_path}/{name}.tar" for name in ("train", "val")),
    ]
    arguments += [f"paths.output_root={tmp_path}/runs", "trainer.val_check_interval=1.0"]
    arguments += ["data.max_skip_rate=1", f"trainer={strategy}", *CPU]
    done = ended(torchrun(HERE / "ranked.py", [str(tmp_path), *arguments]))
    assert done.returncode == 0, done.stderr

    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys() and first["steps"] == 4
    assert all(torch.equal(first[name], second[name]) for name in first)

    (folder,) = (tmp_path / "runs").glob("*/*")  # the second rank has made none of its own
    assert {path.name for path in folder.iterdir()} >= LEFT
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
    rows = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(row["key"] for row in rows) == ["2-broken", "5-broken", "v1-broken"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["data/skipped"] == metrics["data/skipped/decode"] == 3
    # Two videos of the epoch, by two ranks, and two of each of the two validations.
    assert metrics["data/decoded_by/pyav"] == 3 + 2 * 2
    assert metrics["data/gaps"] == 0
    assert metrics["throughput/frames_per_s"] > 0
    assert list(read_right(folder)) == ["v0/0", "v2/0"], "of both ranks"
    assert metrics["visual_tokens"] > 0 and metrics["val/accuracy/other"] in (0, 0.5, 1)


def test_a_rank_that_is_lost_is_told_by_the_other(tmp_path: Path) -> None:
    arguments = [*settings(write_shards(tmp_path), tmp_path / "run"), "trainer=ddp", *CPU]
    ranks = ranks_alone(HERE / "driven.py", [str(tmp_path / "notes"), "train/3/SIGKILL/1", *arguments], ranks=2)
    first, second = (ended(rank) for rank in ranks)
    assert (first.returncode, second.returncode) == (1, -9)
    assert first.stderr.splitlines()[-1].startswith(
        "error: another process of this run has ended, so rank 0 cannot go on; "
    )
    assert "Traceback" not in first.stderr
    assert last(tmp_path / "run")["global_step"] == 2
