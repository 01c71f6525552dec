"""What must be the same for two answers to belong to one result: configuration, weights, data and version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vilamp import __version__
from vilamp.benchmark import Item, VideoFile
from vilamp.errors import ConfigError
from vilamp.evaluation.answers import MISSING, Answer, read_answers
from vilamp.evaluation.videos import Group
from vilamp.evaluation.writing import write_json
from vilamp.training.resume import differences

FILE = "identity.json"
LOCATIONS = {"root", "videos", "annotations", "shards", "generate"}
"""Settings of benchmarks that say where things lie; what lies there is part of the data's hash."""


def weights_hash(model: nn.Module) -> str:
    """BLAKE2b, 128 bits in hex, over names, types, shapes and bytes of all weights, in the order of the names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def data_hash(items: Iterable[Item]) -> str:
    """The same over all that the questions are made of: texts, options, right answers, subtitles, names of videos."""
    digest = hashlib.blake2b(digest_size=16)
    for item in items:
        fields = asdict(item)
        if isinstance(item.video, VideoFile):
            fields["video"] |= {"path": item.video.path.stem}  # one that was missing may come with another suffix
        elif item.video is not None:
            files = [stretch.file for stretch in (*item.video.haystack, item.video.needle)]
            fields["video"] = [item.video.before, item.video.length, item.video.fps, *(file.digest for file in files)]
        digest.update(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def videos_hash(answers: Iterable[Answer]) -> str:
    """The same over names and sizes of the videos that there were; their content is not read for it."""
    names = sorted({(str(answer.video), str(answer.video_bytes)) for answer in answers})
    return hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()


def identity(config: dict[str, Any], model: nn.Module, items: Sequence[Item]) -> dict[str, Any]:
    """What is stored beside the answers.

    Args:
        config: of the evaluation, as :func:`vilamp.build.portable` gives it.
        model: as it answers.
        items: the questions.
    """
    kept = {key: value for key, value in config.items() if key != "checkpoint"}
    kept["precision"] = config["trainer"]["precision"]
    kept["benchmark"] = {key: value for key, value in config["benchmark"].items() if key not in LOCATIONS}
    return {"version": __version__, "weights": weights_hash(model), "data": data_hash(items), "config": kept}


def claim(folder: Path, own: dict[str, Any]) -> None:
    """Write the identity into a folder, or compare it with that of the answers that are there.

    Raises:
        ConfigError: the answers there are of another configuration, other weights or other data.
    """
    file = folder / FILE
    if not file.is_file():
        if read_answers(folder):
            raise ConfigError(
                f"{folder} holds answers without {FILE}: nothing says of what; set hydra.run.dir to another folder"
            )
        write_json(file, own)
        return
    stored = json.loads(file.read_text())
    told = {"version": "another version of vilamp", "weights": "other weights", "data": "other questions"}
    differing = [f"{told[key]} ({stored[key]}, now {own[key]})" for key in told if stored[key] != own[key]]
    differing += differences(_without_places(stored["config"]), _without_places(own["config"]))
    if differing:
        raise ConfigError(
            f"{folder} holds answers of another evaluation: {'; '.join(differing)}. Go on with what that one had, or "
            "set hydra.run.dir to another folder"
        )


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that does not say where weights lie: a model may be moved, and what it is tells its hash."""
    parts = {
        name: {key: value for key, value in part.items() if key != "path"} if isinstance(part, dict) else part
        for name, part in config["model"].items()
    }
    return config | {"model": parts}


def still_to_ask(group: Group, answers: dict[str, Answer]) -> list[Item]:
    """The questions about a video that have no answer yet.

    A video that was missing and now is there is asked about.

    Raises:
        ConfigError: the video is another one than the answers are about.
    """
    pending = []
    for item in group.items:
        answer = answers.get(item.key)
        if answer is None or (answer.reason == MISSING and group.num_bytes is not None):
            pending.append(item)
        elif answer.video_bytes != group.num_bytes:
            raise ConfigError(
                f"{group.name} has {group.num_bytes} bytes and had {answer.video_bytes} when {item.key} was answered: "
                "the videos are not the same any more; set hydra.run.dir to another folder"
            )
    return pending
