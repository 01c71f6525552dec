"""The needle data: a small VideoNIAH that every run can make for itself.

Among 64 to 256 seconds of drifting textures a few events happen; each question is about one of them.  Some events have
the same shape, and the question names the place of the one that is meant; one of these stays longer than there are
keyframes, so that the most relevant frames show one event over and over.  The set is made once, as H.264 files in
WebDataset shards, and then read by the same pipeline as anybody's shards.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vilamp.data import needle_domain, needle_scene, needle_video
from vilamp.data.locks import locked
from vilamp.data.needle_video import SPLITS, NeedleRecipe, NeedleVideo, describe, make_sample, plan_video
from vilamp.data.packing.indexing import write_foreign_index
from vilamp.data.packing.looking import stop_looking
from vilamp.errors import ConfigError, DataError

Sample = dict[str, "str | bytes"]


class NeedleSet:
    """A set of needle videos under ``root``, made when it is first asked for.

    Args:
        root: the folder that holds the sets, one folder for each combination of settings.
        train_videos, val_videos: how many videos each split has.
        min_seconds, max_seconds: lengths are drawn log-uniformly between them, in seconds.
        events: needles per video, at most 8.
        look_alikes: how many of the events have one shape in common, at most 5; one of them stays for 12 to 24 seconds.
            With 1 all shapes differ and all events are short.
        questions_per_video: drawn without repetition from all (event, kind) pairs.
        native_fps: frames a second of the files themselves.
        crowd: seconds, on average, from the end of an event that nobody asks about to the next such event, which have
            colours and shapes of none of the others; None: there are none.
        look: ``plain``, or ``dusk``: other textures, colours, shapes and words, to adapt a model to.
        seed: fixes every byte (for the installed versions of numpy, Pillow and PyAV), whatever the number of workers.
        videos_per_shard: of a tar.
        num_workers: processes that draw and encode; 0 does it in this one, None takes one for each core.
        progress: show a progress bar.

    Raises:
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        root: str | Path,
        train_videos: int = 480,
        val_videos: int = 64,
        min_seconds: int = 64,
        max_seconds: int = 256,
        events: int = 7,
        look_alikes: int = 5,
        questions_per_video: int = 8,
        native_fps: int = 2,
        look: str = "plain",
        crowd: float | None = None,
        seed: int = 0,
        videos_per_shard: int = 32,
        num_workers: int | None = None,
        progress: bool = True,
    ) -> None:
        try:
            self.recipe = NeedleRecipe(
                seed, min_seconds, max_seconds, events, look_alikes, questions_per_video, native_fps, look, crowd
            )
        except ValueError as error:
            raise ConfigError(f"data.generate: {error}") from error
        if min(train_videos, val_videos, videos_per_shard) < 1:
            raise ConfigError(
                "data.generate: train_videos, val_videos and videos_per_shard must be at least 1, got "
                f"{train_videos}, {val_videos} and {videos_per_shard}"
            )
        self.root = Path(root)
        self.videos = {"train": train_videos, "val": val_videos}
        self.videos_per_shard = videos_per_shard
        self.num_workers = _cores() if num_workers is None else num_workers
        self.progress = progress

    @property
    def folder(self) -> Path:
        """Where this set lies; the name carries a digest of every setting and of the code that draws."""
        settings = json.dumps(self._settings(), sort_keys=True).encode()
        digest = hashlib.blake2b(settings, digest_size=6)
        for module in (needle_domain, needle_scene, needle_video):
            digest.update(Path(str(module.__file__)).read_bytes())
        return self.root / f"set-{digest.hexdigest()}"

    def patterns(self) -> dict[str, list[str]]:
        """The shards of each split, as ``data.train`` and ``data.val`` take them."""
        return {split: [str(self.folder / name) for name in self._shard_names(split)] for split in SPLITS}

    def plan(self, split: str, number: int) -> NeedleVideo:
        """What happens in one video of the set; makes no file."""
        return plan_video(self.recipe, split, number)

    def prepare(self) -> None:
        """Make the set unless it is there.

        It is written beside its final place and renamed when complete and on the disk, under a lock that the system
        releases when a process dies: a killed run or a power cut leaves nothing under the final name, and of two runs
        at once one makes the set.

        Raises:
            DataError: the folder cannot be written.
        """
        if self.folder.is_dir():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(self.folder.with_suffix(".lock")):
                if not self.folder.is_dir():
                    self._make()
        except OSError as error:
            raise DataError(f"data.generate.root: cannot write the needle data to {self.root}: {error}") from error

    def _make(self) -> None:
        partial = self.folder.with_suffix(".partial")
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            self._write(partial)
        finally:
            stop_looking()  # a run goes on for long after its data was made
        partial.rename(self.folder)

    def _settings(self) -> dict[str, object]:
        return {**describe(self.recipe), "videos": self.videos, "videos_per_shard": self.videos_per_shard}

    def _shard_names(self, split: str) -> list[str]:
        shards = -(-self.videos[split] // self.videos_per_shard)
        return [f"{split}-{i:06d}.tar" for i in range(shards)]

    def _write(self, folder: Path) -> None:
        columns = (TextColumn("making the needle data"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        jobs = [(self.recipe, split, number) for split in SPLITS for number in range(self.videos[split])]
        with Progress(*columns, disable=not self.progress) as bar:
            task = bar.add_task("", total=len(jobs))

            def made() -> Iterator[Sample]:
                for sample in _in_order(make_sample, jobs, self.num_workers):
                    bar.advance(task)
                    yield sample

            samples = made()
            for split in SPLITS:
                names = iter(self._shard_names(split))
                for first in range(0, self.videos[split], self.videos_per_shard):
                    count = min(self.videos_per_shard, self.videos[split] - first)
                    _write_shard(folder / next(names), islice(samples, count))
        (folder / "settings.json").write_text(json.dumps(self._settings(), indent=2) + "\n", encoding="utf-8")


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_order(make: Callable[..., Sample], jobs: list[tuple], num_workers: int) -> Iterator[Sample]:
    """``make(*job)`` for every job, in the order of the jobs, by several processes where asked."""
    if num_workers < 2:
        yield from (make(*job) for job in jobs)
        return
    # Spawned, not forked: the caller has torch's threads, which a fork would copy in whatever state they are.
    pool = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        pending: deque[Future[Sample]] = deque()
        for job in jobs:
            pending.append(pool.submit(make, *job))
            # A window bounds how many finished videos wait in memory behind a slow one.
            if len(pending) > 8 * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Whoever interrupts a run does not want to wait for the videos in the window.
        pool.shutdown(cancel_futures=True)


def _write_shard(path: Path, samples: Iterator[Sample]) -> None:
    from webdataset.writer import TarWriter  # imports torch

    with path.open("wb") as file:
        # A fixed time and owner, so that the same samples give the same bytes.
        with TarWriter(file, encoder=False, mtime=0.0, user="", group="") as shard:
            for sample in samples:
                shard.write(sample)
        file.flush()
        os.fsync(file.fileno())
    indexed = write_foreign_index(str(path))
    if indexed.error or indexed.refused:
        raise DataError(f"{path}: what was just written cannot be used: {indexed.error or indexed.refused[0]}")
