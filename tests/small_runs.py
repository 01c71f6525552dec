"""Runs that are over in seconds: a few short needle videos, one epoch, no report."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from vilamp.config import compose

VIDEOS = {"train_videos": 4, "val_videos": 4, "min_seconds": 10, "max_seconds": 16, "events": 2, "look_alikes": 1}
FEW = VIDEOS | {"questions_per_video": 4, "videos_per_shard": 4, "num_workers": 1, "progress": "false"}
"""Settings of the generated data."""


def small_run(folder: Path, data_dir: Path, *overrides: str, name: str = "train") -> DictConfig:
    """A configuration that writes to a folder, and makes its videos in another unless they are there.

    Args:
        folder: of the run.
        data_dir: of the videos, for all runs with the same settings of them.
        overrides: what else is set, or set otherwise.
        name: of the command; of what makes no data of its own only the folders are set.
    """
    common = [f"paths.output_dir={folder}", f"paths.data_dir={data_dir}"]
    if name == "train":
        common += [f"data.generate.{setting}={value}" for setting, value in FEW.items()]
        common += ["data.batch_size=2", "data.num_workers=0", "trainer.max_epochs=1", "num_keyframes=3", "logger=csv"]
        common += ["trainer.val_check_interval=1.0", "report=false"]
    return compose(name, [*common, *overrides])
