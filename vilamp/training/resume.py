"""Which checkpoint a run goes on from, and whether it may."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilamp.errors import ConfigError
from vilamp.training.checkpoints import BEST, CONTINUATION, LAST, PREVIOUS, UNFINISHED, read_checkpoint, write_whole
from vilamp.training.ranks import first_rank

log = logging.getLogger(__name__)

AUTO = "auto"
BROKEN = "broken.ckpt"

FREE = frozenset(
    {
        # Where the run is and what it tells.
        "paths", "logger", "report", "resume", "checkpoint", "experiment",
        "data.generate.num_workers", "data.generate.progress",
        # Its length and the machines that it runs on; the position counts samples, and the rest is in float32.
        "trainer", "data.batch_size", "data.num_workers", "model.chunk_size",
        # How videos are read: all decoders find the same frames, and a skip has no part in the position.
        "decoder", "data.decode_timeout", "data.decode_memory", "data.max_skip_rate",
        "data.frames_in_memory", "data.frames_dir",
        # Where the shards are: what is in them is compared when they are read.
        "data.train", "data.val", "data.allow_pipe", "data.cache_dir",
        # The same embeddings, computed or read.
        "data.embedding_cache",
    }
)  # fmt: skip
"""Settings, or groups of them, that may differ from those of the checkpoint."""


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        path: the checkpoint that it goes on from; None begins anew.
        steps: of the optimiser that are behind it.
        best: whether the best checkpoint of the run so far is in the run's folder.
    """

    path: Path | None = None
    steps: int = 0
    best: bool = False


def find_start(resume: str | None, folder: Path, config: dict[str, Any]) -> Start:
    """Find the checkpoint, check it, and bring the best one of its run.

    Args:
        resume: the setting.
        folder: of the checkpoints of this run.
        config: of this run, as it goes into checkpoints.

    Raises:
        ConfigError: no such checkpoint, none that is whole, or it is of another configuration.
    """
    if first_rank():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / UNFINISHED).unlink(missing_ok=True)  # of a run that was killed while it wrote
    if resume is None:
        return Start()
    path = _newest_whole(folder) if resume == AUTO else Path(str(resume)).absolute()
    if path is None:
        if first_rank():
            log.warning("resume=%s: there is no checkpoint in %s, the run begins anew", AUTO, folder)
        return Start()
    checkpoint = read_checkpoint(path, "resume")
    if CONTINUATION not in checkpoint:
        raise ConfigError(f"resume={path} was written by a version that could not go on in the middle of an epoch")
    if checkpoint.get("optimizer_states") == []:
        raise ConfigError(
            f"resume={path} holds no state of the optimiser, which trainer=deepspeed cannot save; begin anew with "
            "resume=null, or with another trainer, whose runs can go on"
        )
    differing = list(differences(checkpoint["config"], config))
    if differing:
        raise ConfigError(
            f"resume={path} is of another configuration: {'; '.join(differing)}. Give the settings of its run "
            f"({path.parent.parent / 'config.yaml'} has them), or begin anew with resume=null"
        )
    best = path.with_name(BEST)
    found = best.is_file()  # asked before it is copied: every rank must find the same
    if found and best.parent != folder and first_rank():
        with best.open("rb") as source:
            write_whole(folder / BEST, lambda file: shutil.copyfileobj(source, file))
    return Start(path, checkpoint[CONTINUATION]["step"], found)


def _newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that can be read; those before it that cannot are told, and kept out of the way.

    Raises:
        ConfigError: there are checkpoints, and none can be read.
    """
    there = [path for name in (LAST, PREVIOUS, BEST) if (path := folder / name).is_file()]
    for path in there:
        try:
            read_checkpoint(path, "resume")
        except ConfigError as error:
            if first_rank():
                log.warning("%s; it is now %s, and the one before it is taken", error, BROKEN)
                path.replace(folder / BROKEN)  # under its own name it would push the whole one out
            continue
        return path
    if there:
        raise ConfigError(f"resume={AUTO}: no checkpoint in {folder} can be read; to begin anew, set resume=null")
    return None


def differences(stored: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Each setting that differs and is not :data:`FREE`, with both values."""
    one, other = dict(_flat(stored)), dict(_flat(now))
    for key in sorted(one.keys() | other.keys()):
        if one.get(key, _ABSENT) != other.get(key, _ABSENT):
            yield f"{key} was {one.get(key, _ABSENT)} and is {other.get(key, _ABSENT)}"


_ABSENT = "not there"


def _flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if name in FREE:
            continue
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
