"""Runs that are killed and go on: in processes of their own, on one rank and on several."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from driven import noted, noting
from launch import HERE, torchrun
from resumable import EXACT, KEYS, assert_same_end, killed, last, logged, reached, settings, write_shards

import vilamp.training.run as training
from vilamp.config import compose
from vilamp.data.order import epoch_order
from vilamp.data.packing.indexing import write_foreign_index
from vilamp.errors import ConfigError
from vilamp.training.answers import read_right
from vilamp.training.run import Run, train

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all tests here."""
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def train_noting(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train here, and note what on."""

    def run(notes: Path, arguments: list[str]) -> Run:
        monkeypatch.setattr(training, "VideoQA", noting(notes))
        folder = next(value.partition("=")[2] for value in arguments if value.startswith("hydra.run.dir="))
        return train(compose("train", [*arguments, f"paths.output_dir={folder}"]))

    return run


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes: sums of several threads are others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("lora", ["default", "vision", pytest.param("small_vision", marks=pytest.mark.soak)])
def test_a_killed_run_goes_on_to_the_weights_that_it_would_have_had(
    shards: Path, train_noting: Any, tmp_path: Path, lora: str
) -> None:
    whole, parts, exact = tmp_path / "whole", tmp_path / "parts", [*EXACT, f"lora={lora}"]
    train_noting(tmp_path / "all", settings(shards, whole, *exact))
    # In the second batch of a step, before it is made: four steps, of eight batches, are saved.
    killed(tmp_path / "before", 10, settings(shards, parts, *exact, "resume=auto"))
    assert last(parts)["continuation"]["position"] == (0, 8)
    (parts / "checkpoints" / "unfinished.tmp").write_bytes(b"killed while it was written")
    train_noting(tmp_path / "after", settings(shards, parts, *exact, "resume=auto"))
    order = noted(tmp_path / "all")
    assert order == [(epoch, KEYS[number]) for epoch in (0, 1) for number in epoch_order(11, 0, epoch)]
    assert noted(tmp_path / "before0") == order[:10] and noted(tmp_path / "after") == order[8:]
    assert_same_end(whole, parts)
    tower = [w for name, w in last(parts)["state_dict"].items() if "vision_tower" in name and "lora_B" in name]
    assert bool(tower) == (lora != "default") and all(weight.any() for weight in tower), "they have trained"


def test_two_ranks_are_killed_and_one_goes_on_with_the_rest(shards: Path, train_noting: Any, tmp_path: Path) -> None:
    killed(tmp_path / "before", 3, settings(shards, tmp_path / "run"), ranks=2)
    assert last(tmp_path / "run")["continuation"]["position"] == (0, 4)
    assert len(last(tmp_path / "run")["continuation"]["random"]) == 2
    run = train_noting(tmp_path / "after", settings(shards, tmp_path / "run", "resume=auto", "data.batch_size=3"))
    order = [(epoch, KEYS[number]) for epoch in (0, 1) for number in epoch_order(11, 0, epoch)]
    # As sets of each batch: a batch has its unusable samples at its end.
    batches = [json.loads(line) for line in (tmp_path / "after").read_text().splitlines()]
    assert [len(keys) for _, keys in batches] == [3, 3, 1, 3, 3, 3, 2]
    assert Counter(noted(tmp_path / "after")) == Counter(order[4:])
    assert [set(keys) for _, keys in batches[:1]] == [{key for _, key in order[4:7]}]
    assert run.trainer.global_step == 2 + 3 + 4
    assert run.trainer.optimizers[0].param_groups[0]["lr"] == 0, "the schedule ends with the run"


def test_grouped_videos_are_gone_on_with_by_other_ranks_in_other_batches(train_noting: Any, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    write_shards(shards)
    for shard in sorted(shards.glob("*.tar")):
        assert not write_foreign_index(str(shard)).error
    arguments = settings(shards, tmp_path / "run", "data.group_by_length=2")
    killed(tmp_path / "before", 3, arguments, ranks=2)
    assert last(tmp_path / "run")["continuation"]["position"] == (0, 4)
    had = [sample for rank in (0, 1) for sample in noted(tmp_path / f"before{rank}")[:2]]
    train_noting(tmp_path / "after", [*arguments, "resume=auto", "data.batch_size=3"])
    assert sorted(had + noted(tmp_path / "after")) == [(epoch, key) for epoch in (0, 1) for key in KEYS]
    with pytest.raises(ConfigError, match=r"data\.group_by_length was 2 and is None"):
        train_noting(tmp_path / "other", [*settings(shards, tmp_path / "run"), "resume=auto"])


@pytest.mark.parametrize("steps", [4, 6], ids=["within an epoch", "between two"])
def test_a_run_that_ended_by_steps_can_be_made_longer(
    shards: Path, train_noting: Any, tmp_path: Path, steps: int
) -> None:
    arguments = [*settings(shards, tmp_path / "run", "trainer.accumulate_grad_batches=2"), "resume=auto"]
    train_noting(tmp_path / "before", [*arguments, f"trainer.max_steps={steps}"])
    longer = train_noting(tmp_path / "after", [*arguments, "trainer.max_steps=9"])
    assert longer.trainer.global_step == 9
    order = [(epoch, KEYS[number]) for epoch in (0, 1) for number in epoch_order(11, 0, epoch)]
    assert noted(tmp_path / "before") + noted(tmp_path / "after") == order[: 11 + 6]
    assert [int(row["step"]) for row in logged(tmp_path / "run") if row["train/loss"]] == list(range(9))
    again = train_noting(tmp_path / "nothing", [*arguments, "trainer.max_steps=9"])
    assert not (tmp_path / "nothing").exists()
    assert again.metrics["val/accuracy"] == longer.metrics["val/accuracy"]


def test_a_checkpoint_goes_on_in_another_folder_with_the_best_one_of_its_run(
    shards: Path, train_noting: Any, tmp_path: Path
) -> None:
    train_noting(tmp_path / "notes", settings(shards, tmp_path / "one", "trainer.max_epochs=1"))
    path = tmp_path / "one" / "checkpoints" / "last.ckpt"
    run = train_noting(tmp_path / "more", settings(shards, tmp_path / "two", f"resume={path}", "trainer.max_epochs=2"))
    assert {epoch for epoch, _ in noted(tmp_path / "more")} == {1}
    assert (tmp_path / "two" / "checkpoints" / "best.ckpt").exists()
    rows = run.module.history
    assert len(rows) == 3
    answers = read_right(tmp_path / "two").values()
    assert sum(answers) / len(answers) == pytest.approx(run.metrics["val/accuracy"], abs=1e-6)
    assert run.metrics["val/accuracy"] == pytest.approx(max(row["val/accuracy"] for row in rows[1:]), abs=1e-6)
    (path.parent / "best.ckpt").unlink()
    alone = train_noting(tmp_path / "a", settings(shards, tmp_path / "three", f"resume={path}", "trainer.max_epochs=2"))
    assert len(alone.module.history) == 2
    assert alone.metrics["val/accuracy"] == pytest.approx(alone.module.history[1]["val/accuracy"], abs=1e-6)


@pytest.mark.soak
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_fifty_random_steps(shards: Path, tmp_path: Path, workers: int, ranks: int) -> None:
    """All of them on one run: it is killed, goes on, is killed again."""
    chance = random.Random(10 * workers + ranks)
    arguments = [*settings(shards, tmp_path / "run", *EXACT, "trainer.max_epochs=30"), f"data.num_workers={workers}"]
    size = len(KEYS)
    order = [(epoch, KEYS[number]) for epoch in range(30) for number in epoch_order(size, 0, epoch)]
    seen: Counter[tuple[int, str]] = Counter()
    before = (0, 0)
    for kill in range(51):
        notes = tmp_path / f"notes{kill}-"
        killed(notes, 0 if kill == 50 else chance.randint(2, 4 // ranks + 3), [*arguments, "resume=auto"], ranks)
        epoch, consumed = reached(tmp_path / "run")
        did = [noted(Path(f"{notes}{rank}")) for rank in range(ranks)]
        for rank, keys in enumerate(did):
            expected = [
                place
                for e in range(before[0], 30)
                for place in order[e * size :][before[1] if e == before[0] else 0 : size][rank::ranks]
            ]
            assert keys == expected[: len(keys)], f"kill {kill}, rank {rank}"
        new = order[before[0] * size + before[1] : epoch * size + consumed]
        assert Counter(new) <= Counter(key for keys in did for key in keys)
        seen.update(new)
        before = (epoch, consumed)
    assert seen == Counter(order)


@pytest.mark.soak
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 4), (4, 1)])
def test_two_ranks_with_two_workers_go_on_as_others(shards: Path, tmp_path: Path, ranks: int, workers: int) -> None:
    arguments = [*settings(shards, tmp_path / "run"), "resume=auto"]
    killed(tmp_path / "before", 4, [*arguments, "data.num_workers=2"], ranks=2)
    epoch, consumed = last(tmp_path / "run")["continuation"]["position"]
    assert (epoch, consumed) == (0, 6)
    killed(tmp_path / "after", 0, [*arguments, f"data.num_workers={workers}"], ranks=ranks)
    order = [(epoch, KEYS[number]) for epoch in (0, 1) for number in epoch_order(11, 0, epoch)]
    did = [noted(tmp_path / f"after{rank}") for rank in range(ranks)]
    assert Counter(key for keys in did for key in keys) == Counter(order[consumed:])


@pytest.mark.soak
@pytest.mark.parametrize("lora", ["default", "vision"])
def test_killed_at_twenty_random_moments_the_weights_are_the_same(shards: Path, tmp_path: Path, lora: str) -> None:
    chance, exact = random.Random(0), [*EXACT, f"lora={lora}"]
    killed(tmp_path / "notes", 0, settings(shards, tmp_path / "whole", *exact))
    for moment in range(20):
        folder = tmp_path / f"run{moment}"
        arguments = [*settings(shards, folder, *exact), "resume=auto"]
        for _ in range(1 + moment % 2):  # every other one twice
            process = torchrun(HERE / "driven.py", [str(tmp_path / "notes"), "never", *arguments], ranks=1)
            while process.poll() is None and not (folder / "checkpoints" / "last.ckpt").exists():
                time.sleep(0.05)
            time.sleep(chance.random() * 2)
            process.kill()
            process.communicate()
        killed(tmp_path / "notes", 0, arguments)
        assert_same_end(tmp_path / "whole", folder)
