"""Checkpoints on the disk: whole or not there, checked when read, and refused where they do not fit."""

from __future__ import annotations

import errno
import logging
import os
import random
import resource
import signal
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vilamp.errors import ConfigError
from vilamp.training.checkpoints import CONTINUATION, LastCheckpoint, WholeFiles, read_checkpoint, write_whole
from vilamp.training.preemption import Preemption
from vilamp.training.restart import random_states, restore_random_states
from vilamp.training.resume import Start, differences, find_start

CONFIG: dict[str, Any] = {
    "seed": 0,
    "selector": {"_target_": "a.B", "tau": 0.5},
    "lora": {},
    "data": {
        "batch_size": 1,
        "num_workers": 2,
        "fps": 1.0,
        "train": "a.tar",
        "generate": {"events": 7, "progress": True},
    },
    "trainer": {"max_epochs": 3, "devices": 1},
    "logger": {"mode": "offline"},
    "paths": {"output_dir": "one"},
    "resume": None,
}


def write(folder: Path, step: int, size: int = 1000, name: str = "last.ckpt") -> None:
    checkpoint = {"config": CONFIG, CONTINUATION: {"step": step}, "state_dict": {"w": torch.full((size,), float(step))}}
    WholeFiles().save_checkpoint(checkpoint, folder / name)


def step_of(path: Path | None) -> int:
    assert path is not None
    checkpoint = read_checkpoint(path, "resume")
    assert bool((checkpoint["state_dict"]["w"] == checkpoint[CONTINUATION]["step"]).all())
    return int(checkpoint[CONTINUATION]["step"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(path: Path) -> None:
    """Change one byte in a tensor, which torch itself does not notice."""
    with zipfile.ZipFile(path) as archive:
        (member,) = (info for info in archive.infolist() if info.filename.endswith("data/0"))
    content = bytearray(path.read_bytes())
    content[member.header_offset + member.file_size // 2 + 200] ^= 1
    path.write_bytes(content)


def test_the_last_one_becomes_the_previous_one(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    write(tmp_path, 2, name="best.ckpt")
    assert names(tmp_path) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert step_of(tmp_path / "last.ckpt") == 3 and step_of(tmp_path / "previous.ckpt") == 2


def test_a_disk_that_is_full_in_the_middle_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError) as refused:
            write(tmp_path, 2, size=1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.errno == errno.EFBIG
    assert names(tmp_path) == ["last.ckpt"] and step_of(tmp_path / "last.ckpt") == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.soak)])
def test_killed_while_it_writes_there_is_a_whole_one_and_nothing_else(tmp_path: Path, kills: int) -> None:
    """The temporary folder plays no part, on whatever file system it is."""
    tensor, chance, step = torch.zeros(2_000_000), random.Random(0), 1

    def keep_writing() -> None:
        for number in range(step, 10**6):
            checkpoint = {"config": CONFIG, CONTINUATION: {"step": number}, "state_dict": {"w": tensor}}
            WholeFiles().save_checkpoint(checkpoint, tmp_path / "last.ckpt")

    for _ in range(kills):
        before = _written(tmp_path)
        child = os.fork()
        if child == 0:
            try:
                keep_writing()
            finally:
                os._exit(1)
        while _written(tmp_path) == before:  # the first is written, the second on its way
            time.sleep(0.001)
        time.sleep(chance.random() / 50)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        start = find_start("auto", tmp_path, CONFIG)
        assert start.steps >= step
        assert set(names(tmp_path)) <= {"last.ckpt", "previous.ckpt"}
        step = start.steps + 1


def _written(folder: Path) -> int | None:
    try:
        return (folder / "last.ckpt").stat().st_ino
    except FileNotFoundError:
        return None


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    damage(tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match=r"resume=.*last\.ckpt cannot be read: the check sum of .*data/0"):
        find_start(str(tmp_path / "last.ckpt"), tmp_path, CONFIG)
    for _ in range(2):
        start = find_start("auto", tmp_path, CONFIG)
        assert start == Start(tmp_path / "previous.ckpt", 1, False)
    assert len(caplog.records) == 1 and "broken.ckpt" in caplog.text
    write(tmp_path, 3)
    assert names(tmp_path) == ["broken.ckpt", "last.ckpt", "previous.ckpt"]
    assert step_of(tmp_path / "previous.ckpt") == 1, "the damaged one did not take its place"


def test_without_the_state_of_the_optimiser_no_run_goes_on(tmp_path: Path) -> None:
    checkpoint = {"config": CONFIG, CONTINUATION: {"step": 1}, "state_dict": {}, "optimizer_states": []}
    WholeFiles().save_checkpoint(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match=r"holds no state of the optimiser, which trainer=deepspeed cannot save"):
        find_start("auto", tmp_path, CONFIG)


def test_where_all_are_damaged_nothing_begins_anew_by_itself(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"")
    (tmp_path / "best.ckpt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ConfigError, match=r"no checkpoint in .* can be read; to begin anew, set resume=null"):
        find_start("auto", tmp_path, CONFIG)


def test_auto_without_a_checkpoint_begins_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_start("auto", tmp_path / "none", CONFIG) == Start()
    assert "there is no checkpoint" in caplog.text
    with pytest.raises(ConfigError, match=r"resume=.*none\.ckpt does not exist"):
        find_start(str(tmp_path / "none.ckpt"), tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("group", "key", "value", "told"),
    [
        ("selector", "tau", 0.7, "selector.tau was 0.5 and is 0.7"),
        ("lora", "rank", 8, "lora.rank was not there and is 8"),
        ("data", "fps", 2.0, "data.fps was 1.0 and is 2.0"),
        (None, "seed", 1, "seed was 0 and is 1"),
        ("trainer", "devices", 2, None),
        ("trainer", "max_epochs", 9, None),
        ("data", "num_workers", 0, None),
        ("data", "batch_size", 4, None),
        ("data", "train", "/elsewhere/a.tar", None),
        ("logger", "mode", "online", None),
        (None, "resume", "auto", None),
    ],
)
def test_what_makes_another_run_is_named_and_the_rest_is_free(
    tmp_path: Path, group: str | None, key: str, value: Any, told: str | None
) -> None:
    write(tmp_path, 1)
    now = {**CONFIG, key: value} if group is None else {**CONFIG, group: {**CONFIG[group], key: value}}
    if told is None:
        assert find_start("auto", tmp_path, now).steps == 1
        return
    assert list(differences(CONFIG, now))[-1] == told
    with pytest.raises(ConfigError, match=f"of another configuration: .*{told}"):
        find_start("auto", tmp_path, now)


def test_random_states_come_back_and_are_plain(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.standard_normal()), float(torch.rand(())), random.gauss()]

    draw()  # numpy and random now hold back the second of two normal numbers
    write_whole(tmp_path / "states", lambda file: torch.save(random_states(), file))
    expected = draw()
    states = torch.load(tmp_path / "states", weights_only=True)
    restore_random_states([states], 0, 1, seed=3)
    assert draw() == expected
    drawn = []
    for rank in (0, 1, 0):
        restore_random_states([states], rank, 2, seed=3)  # other ranks: another start, the same each time
        drawn.append(draw())
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.parametrize("every", [0, -1, 2.5, True])
def test_the_interval_is_a_whole_number(every: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint\.every_n_steps must be a whole number"):
        LastCheckpoint(tmp_path, every, Preemption())
