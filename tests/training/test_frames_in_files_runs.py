"""A whole run whose frames wait in files ends with the weights of one whose frames are in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from own_shards import draw_clip, write_shard

from vilamp.config import compose
from vilamp.training.run import train

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]


@pytest.mark.soak
def test_the_weights_are_the_same_to_the_bit(tmp_path: Path) -> None:
    asked = [{"question": "what is it?", "answer": "grey"}]
    for split, count in (("train", 5), ("val", 2)):
        write_shard(tmp_path / f"{split}.tar", [(f"{split}{i}", asked, draw_clip()) for i in range(count)])
    shards = [f"data.{split}={tmp_path / split}.tar" for split in ("train", "val")]
    ends = []
    for limit, workers in (("null", 0), ("0", 2)):
        own = [f"data.frames_in_memory={limit}", f"data.num_workers={workers}", f"paths.output_dir={tmp_path / limit}"]
        own += ["data.batch_size=2", f"data.frames_dir={tmp_path / 'frames'}", "report=false"]
        train(compose("train", ["data=shards", *shards, *own, "logger=csv", "trainer.max_epochs=2"]))
        ends.append(torch.load(tmp_path / limit / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert ends[0].keys() == ends[1].keys() and len(ends[0]) > 10
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not list((tmp_path / "frames").iterdir())
