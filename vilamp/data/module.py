"""The data of a run: patterns in, batches out."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from vilamp.credentials import without_credentials
from vilamp.data.dataset import Collate, VideoDataset
from vilamp.data.decode import VideoReader
from vilamp.data.frames import Corrupt, FrameSettings, Sampling
from vilamp.data.isolation import Budget
from vilamp.data.mixture import MixedSet, Patterns, together
from vilamp.data.needle import NeedleSet
from vilamp.data.order import EpochBatches, LengthGroups, Mixed, Position
from vilamp.data.patterns import expand_patterns
from vilamp.data.shard_sample import ShardIndex, ShardSample
from vilamp.data.shards import index_shards
from vilamp.data.spool import IN_MEMORY_GIB, Spool
from vilamp.data.workers import StayingWorkersLoader
from vilamp.embedding_cache import EmbeddingCache
from vilamp.errors import ConfigError, DataError
from vilamp.samples import Batch, EncodeQuestion, Skip
from vilamp.video import VideoDecoder

log = logging.getLogger(__name__)


class VideoDataModule(LightningDataModule):
    """Training and validation batches from WebDataset shards (format: ``data/README.md``).

    Args:
        train, val: patterns of shards; None takes that split of ``generate``, or goes without it.
        generate: data to make first, where ``train`` or ``val`` is None.
        mix: name -> fields of a :class:`MixedSet`, sets to train on besides ``train``.
        fps: frames a second.
        max_frames: of a video, evenly spread where it has more.
        frame_size: height and width of the frames in pixels.
        sampling, corrupt, max_gaps: as in :class:`~vilamp.data.frames.FrameSettings`.
        decode_timeout: seconds, and
        decode_memory: GiB that the decoding of one video may take; None is no limit.
        frames_in_memory: GiB that the frames of one video may have in memory, and its bytes where a server sends them;
            what is larger is put into a file in
        frames_dir: as in :class:`~vilamp.data.spool.Spool`.
        max_skip_rate: the share of samples that may be unusable; who counts them ends the run beyond it.
        batch_size: videos per process and step.
        num_workers: processes that decode; 0 decodes between the steps.
        max_questions: about one training video in one epoch; None asks all.
        group_by_length: so many training videos of similar length follow each other; None shuffles all alike.
        allow_pipe: a shard may be the output of a command.
        cache_dir: where copies go of shards that are no local files and have no index.
        embedding_cache: folder in which the scorer's frame embeddings are kept; None keeps none.
        seed: of the order and of the questions' random choices.
        encode: turns a question into token ids; comes from the model, not from a file.
        decoder: reads the videos.
        scorer: digest of the model's scorer, whose embeddings ``embedding_cache`` keeps.

    Attributes:
        embeddings: the cache, which the model is to fill; None without one.
        skips: what is no sample, known since ``setup`` (the batches tell the rest, ``Batch.skipped``).
        start: where training goes on; to be set before the first batch.

    Raises:
        ConfigError: a value out of its range.
        DataError: a pattern matches nothing.
    """

    def __init__(
        self,
        train: Patterns | None = None,
        val: Patterns | None = None,
        generate: NeedleSet | None = None,
        mix: Mapping[str, Mapping[str, Any]] | None = None,
        fps: float = 1.0,
        max_frames: int = 256,
        frame_size: int = 96,
        sampling: Sampling = "uniform_fps",
        corrupt: Corrupt = "error",
        max_gaps: float = 0.05,
        decode_timeout: float | None = None,
        decode_memory: float | None = None,
        frames_in_memory: float | None = IN_MEMORY_GIB,
        frames_dir: str | None = None,
        max_skip_rate: float = 0.01,
        batch_size: int = 1,
        num_workers: int = 0,
        max_questions: int | None = None,
        group_by_length: int | None = None,
        allow_pipe: bool = False,
        cache_dir: str | Path = "data/remote",
        embedding_cache: str | Path | None = None,
        seed: int = 0,
        *,
        encode: EncodeQuestion,
        decoder: VideoDecoder,
        scorer: str = "",
    ) -> None:
        super().__init__()
        _check(batch_size, num_workers, max_questions, group_by_length, max_skip_rate)
        given = {"train": train, "val": val}
        # Now and not in setup(): a misspelt pattern is told before data is made and loggers are started.
        self.given = {
            split: expand_patterns(patterns, f"data.{split}", remote=True, allow_pipe=allow_pipe)
            for split, patterns in given.items()
            if patterns is not None
        }
        self.mix = {name: MixedSet.of(name, fields) for name, fields in (mix or {}).items()}
        self.given |= {
            _mixed(name): expand_patterns(one.shards, f"data.mix.{name}.shards", remote=True, allow_pipe=allow_pipe)
            for name, one in self.mix.items()
            if one.shards is not None
        }
        self.cache_dir = Path(cache_dir)
        self.generate = generate
        frames = FrameSettings(fps, max_frames, frame_size, sampling, corrupt, max_gaps)
        self.embeddings = None if embedding_cache is None else EmbeddingCache(embedding_cache, scorer)
        self.reader = VideoReader(
            decoder, frames, Budget(decode_timeout, decode_memory), Spool(frames_in_memory, frames_dir), self.embeddings
        )
        self.max_skip_rate = max_skip_rate
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.max_questions = max_questions
        self.group_by_length = group_by_length
        self.seed = seed
        self.encode = encode
        self.indices: dict[str, ShardIndex] = {}
        self.mixed: list[Mixed] = []
        self.groups: LengthGroups | None = None
        self.start = Position()

    def require(self, split: str) -> None:
        """Raise ConfigError where there is no such split (``train`` or ``val``)."""
        if split not in self.given and self.generate is None:
            raise ConfigError(
                f"data.{split} is null and data.generate too: there is nothing to {split} on. "
                f"Give shards (data=shards data.{split}=...) or take data=needle"
            )

    @property
    def validates(self) -> bool:
        """Whether there is anything to validate on."""
        return "val" in self.given or self.generate is not None

    @property
    def memory_settings(self) -> str:
        """What says how much memory the workers take, for messages."""
        memory = {
            "num_workers": self.num_workers,
            "batch_size": self.batch_size,
            "frames_in_memory": self.reader.spool.gib,
            "decode_memory": self.reader.budget.gib,
        }
        return ", ".join(f"data.{name}={'null' if value is None else value}" for name, value in memory.items())

    @property
    def skips(self) -> list[Skip]:
        """What is no sample, of both splits."""
        return [skip for index in self.indices.values() for skip in index.skips]

    def prepare_data(self) -> None:
        """Make the data where it is to be made and is not there; once for each node."""
        if self.generate is not None and not {"train", "val"} <= set(self.given):
            self.generate.prepare()
        for one in self.mix.values():
            if one.shards is None and one.generate is not None:
                one.generate.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Find the shards and index them.

        Raises:
            DataError: there is no sample at all, a server or a command does not give a shard, or lengths are wanted of
                shards without an index.
            OutputError: ``cache_dir`` cannot be written.
        """
        if self.indices:
            return
        made = {} if self.generate is None else self.generate.patterns()
        made |= {_mixed(name): one.generate.patterns()["train"] for name, one in self.mix.items() if one.generate}
        wanted = {split: pattern for split, pattern in made.items() if split not in self.given}
        shards = self.given | {split: expand_patterns(pattern, f"data.{split}") for split, pattern in wanted.items()}
        trained = [shard for split, files in shards.items() if split != "val" for shard in files]
        seen = {Path(shard).resolve() for shard in trained}
        shared = [shard for shard in shards.get("val", []) if Path(shard).resolve() in seen]
        if shared:
            log.warning(
                "%d shard(s) of data.val are also in data.train, for example %s: the validation figures will tell what "
                "was remembered, not what was learnt", len(shared), without_credentials(shared[0])
            )  # fmt: skip
        indices = {split: index_shards(files, f"data.{split}", self.cache_dir) for split, files in shards.items()}
        mixed = [indices.pop(_mixed(name)) for name in self.mix]
        if mixed:
            indices["train"], self.mixed = together(indices["train"], mixed, self.mix)
        if "val" in indices:
            _warn_of_shared_keys(indices["val"].samples)
        if self.group_by_length is not None and "train" in indices:
            self.groups = self._group(indices["train"], self.group_by_length)
        self.indices = indices

    def _group(self, index: ShardIndex, size: int) -> LengthGroups:
        """Training samples by the number of frames that are read of them."""
        if not index.verified:
            raise DataError(
                f"data.group_by_length={size} needs the length of every training video, which the index beside a shard "
                "tells; the warning above names a shard that has none that can be used. `vilamp index` makes it, "
                "data.group_by_length=null does without"
            )
        settings = self.reader.settings
        # A sample without a video has no frames, and one whose video cannot be read is skipped.
        frames = [
            min(math.ceil((sample.seconds or 0.0) * settings.fps), settings.max_frames) for sample in index.samples
        ]
        return LengthGroups(size, np.array(frames))

    def digests(self) -> dict[str, str]:
        """Of each split, what tells another set or order of samples from this one: a hash over their keys.

        Where samples are grouped by length, over their lengths too.
        """
        told = {split: "\0".join(s.key for s in index.samples).encode() for split, index in self.indices.items()}
        if self.groups is not None:
            told["train"] += self.groups.lengths.tobytes()
        return {split: hashlib.blake2b(what, digest_size=16).hexdigest() for split, what in told.items()}

    def train_batches(self) -> EpochBatches:
        """The batches of this rank, shuffled anew in every epoch, from ``start`` on."""
        return self._batches("train", shuffle=True, start=self.start)

    def train_dataloader(self) -> DataLoader[Any]:
        """Of :meth:`train_batches`."""
        batches = self.train_batches()
        in_a_step = batches.batch_size * batches.world_size
        if self.groups is not None and self.groups.size % in_a_step:
            log.warning(
                "data.group_by_length=%d is no multiple of the %d videos in a step of all processes: some steps have "
                "videos of two groups", self.groups.size, in_a_step
            )  # fmt: skip
        return self._loader("train", batches, self.max_questions)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """In the order of the shards, the same in every epoch; an empty list without validation data."""
        return self._loader("val", self._batches("val", shuffle=False), None) if "val" in self.indices else []

    def whole_val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """As :meth:`val_dataloader`, with what it gives to all ranks."""
        if "val" not in self.indices:
            return []
        alone = EpochBatches(len(self.indices["val"].samples), self.batch_size, seed=self.seed, shuffle=False)
        return self._loader("val", alone, None)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Leave the batch on the host: the model moves the frames chunk by chunk."""
        return batch

    def _batches(self, split: str, *, shuffle: bool, start: Position = Position()) -> EpochBatches:  # noqa: B008
        mixed = self.mixed if split == "train" else []
        return EpochBatches(
            len(self.indices[split].samples) - sum(one.size for one in mixed),
            self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            start=start,
            mixed=mixed,
            groups=self.groups if shuffle else None,
        )

    def _loader(self, split: str, batches: EpochBatches, max_questions: int | None) -> DataLoader[Any]:
        return StayingWorkersLoader(
            VideoDataset(self.indices[split].samples, self.reader, self.seed, max_questions),
            batch_sampler=batches,
            collate_fn=Collate(self.encode),
            num_workers=self.num_workers,
            # A batch can be gigabytes of frames, on a disk at least: no more of them than needed wait for their turn.
            prefetch_factor=1 if self.num_workers else None,
            # Nothing in a worker depends on the epoch: it comes with every place.
            persistent_workers=self.num_workers > 0,
            # Without one of its own, every new iteration would draw from the generator of the dropout.
            generator=torch.Generator(),
        )


def _warn_of_shared_keys(samples: Sequence[ShardSample]) -> None:
    """Warn of samples that keys do not tell apart, as those of sets whose videos are all called 1.mp4, 2.mp4 ..."""
    shared = [key for key, count in Counter(sample.key for sample in samples).items() if count > 1]
    if shared:
        log.warning(
            "data.val: %d key(s) are of more than one sample, for example %s: val_answers.jsonl, and `vilamp compare`, "
            "has the answers about one of them. Pack each set's videos from a folder of its own below one --videos",
            len(shared), shared[0],
        )  # fmt: skip


def _mixed(name: str) -> str:
    """Under which a set stands among the splits."""
    return f"mix.{name}"


def _check(
    batch_size: int, num_workers: int, max_questions: int | None, group_by_length: int | None, max_skip_rate: float
) -> None:
    """Raise ConfigError where one of them is out of its range."""
    for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
        if value < least:
            raise ConfigError(f"data.{name} must be at least {least}, got {value}")
    if max_questions is not None and max_questions < 1:
        raise ConfigError(f"data.max_questions must be at least 1, or null for all, got {max_questions}")
    if group_by_length is not None and (type(group_by_length) is not int or group_by_length < 1):
        raise ConfigError(
            "data.group_by_length must be a number of videos, at best a multiple of those in a step of all "
            f"processes (64, for example), or null, got {group_by_length}"
        )
    if not 0 <= max_skip_rate <= 1:
        raise ConfigError(f"data.max_skip_rate must be a share, 0 to 1, got {max_skip_rate}")
