"""What a run trained, in each form that it is kept in: a checkpoint, adapters with their connector, a whole model.

========================  ==============================================================================================
a checkpoint              a file, ``RUN/checkpoints/best.ckpt``: what trained, and the configuration
a run's folder            its ``best.ckpt``, or ``last.ckpt`` where nothing validated
adapters                  ``RUN/adapter/``, the language model's in PEFT's format, with the configuration in
                          ``vilamp.yaml``; in it ``vision_tower/``, the tower's if there are any; beside it
                          ``connector.safetensors``, with merger, projector and whatever else trained
a whole model             what ``vilamp export`` wrote: a folder for each large part, ``connector.safetensors`` and
                          ``vilamp.yaml``
========================  ==============================================================================================
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vilamp.disk import partial_of
from vilamp.errors import ConfigError
from vilamp.locations import conf_dir
from vilamp.models.checkpoint import Init, Report
from vilamp.models.lora import ADAPTABLE, adapted_models, adapter_parameters, adapter_tensors, load_adapter
from vilamp.models.pretrained import local_folder
from vilamp.models.video_lm import VideoLM
from vilamp.training.checkpoints import BEST, LAST, read_checkpoint, write_whole
from vilamp.training.ranks import first_rank
from vilamp.training.sharding import whole

ADAPTER, CONNECTOR, SETTINGS = "adapter", "connector.safetensors", "vilamp.yaml"
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CONNECTING = ("selector", "merger", "projector")
"""The parts between scorer, tower and language model; all of their weights are in the connector's file."""
FOLDERS = ("scorer", "vision_tower", "language_model")
"""The parts that have a folder each in an exported model."""


@dataclass(frozen=True)
class Trained:
    """What a run trained.

    Attributes:
        source: the file or folder that was read.
        config: the run's configuration in plain containers.
        weights: name of a parameter of :class:`~vilamp.models.video_lm.VideoLM` -> weight.
        adapters: part -> its adapters under PEFT's names, where they do not stand among ``weights``.
        whole: nothing but these weights and the paths of ``config`` is needed.
    """

    source: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    adapters: dict[str, dict[str, Tensor]] | None = None
    whole: bool = False

    def configuration(self) -> DictConfig:
        """The run's configuration; one from before there were variants did as the paper says."""
        config = OmegaConf.create(self.config)
        if "variant" not in config:
            config.variant = OmegaConf.load(conf_dir() / "variant" / "paper.yaml")
            config.model.anchor = config.variant.anchor
        return config

    def fill(self, model: VideoLM) -> Report:
        """Put the weights into a model that has the parts and the adapters of the run.

        Raises:
            ConfigError: they do not fit.
        """
        state = model.state_dict()
        lost = sorted(set(self.weights) - set(state))
        resized = [n for n, weight in self.weights.items() if n in state and state[n].shape != weight.shape]
        if lost or resized:
            raise ConfigError(
                f"{self.source} does not fit the model: {(lost or resized)[:5]} ({len(lost)} that it lacks, "
                f"{len(resized)} of another size); use the selector, merger and model of its run, and their settings"
            )
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if name in self.weights:  # what was trained in float32 is not rounded to what the frozen file had
                parameter.data = parameter.data.to(self.weights[name].dtype)
        model.load_state_dict(self.weights, strict=False)
        filled = {name: name for name in self.weights}
        if self.adapters is not None:
            filled |= self._fill_adapters(model, self.adapters)
        return Report(filled, kept=sorted(set(state) - set(filled)))

    def _fill_adapters(self, model: VideoLM, adapters: Mapping[str, Mapping[str, Tensor]]) -> dict[str, str]:
        found = adapted_models(model)
        if left := sorted(set(adapters) - set(found)):
            raise ConfigError(f"{self.source} holds adapters of the {left[0]}, in which its settings want none")
        filled: dict[str, str] = {}
        if lost := sorted(set(found) - set(adapters)):
            raise ConfigError(f"{self.source} lacks {lost[0]}/, the adapters that its settings ask for there")
        for part, adapted in found.items():
            load_adapter(adapted, adapters[part], str(_adapter_folder(self.source, part) / PEFT_WEIGHTS))
            filled |= {f"{part}.{name}": PEFT_WEIGHTS for name in adapter_parameters(model.get_submodule(part))}
        return filled


class FromRun(Init):
    """``init=run``: everything is as a run left it.

    Args:
        path: any form that :func:`read_trained` knows.

    Raises:
        ConfigError: nothing readable there.
    """

    def __init__(self, path: str) -> None:
        self.path, self.trained = path, read_trained(path, "init.path")

    def base(self, part: str) -> str:
        """What holds a part as the run left it: a folder of Transformers, or else the run."""
        return str(self.trained.config["model"][part]["path"]) if self.trained.whole else self.path


def read_trained(path: str, setting: str) -> Trained:
    """Read what a run trained.

    Args:
        path: one of the forms of this module's table; a whole model may also be a repository of the hub.
        setting: that named it, for messages.

    Raises:
        ConfigError: there is no such thing, it is damaged, or something of it is missing.
    """
    folder = Path(path)
    if not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", path) and folder.suffix != ".ckpt":
        folder = local_folder(path, setting)
    if (folder / PEFT_CONFIG).is_file():
        return _read_adapter(folder, setting)
    if (folder / SETTINGS).is_file():
        return _read_whole(folder, setting)
    if folder.is_dir():
        found = [file for name in (BEST, LAST) if (file := folder / "checkpoints" / name).is_file()]
        if not found:
            raise ConfigError(
                f"{setting}={path} is neither a run's folder (with checkpoints/), nor one of adapters (with "
                f"{PEFT_CONFIG}), nor what `vilamp export` wrote (with {SETTINGS})"
            )
        folder = found[0]
    stored = read_checkpoint(folder, setting)
    weights = {name.removeprefix("model."): weight for name, weight in stored["state_dict"].items()}
    return Trained(folder, stored["config"], weights)


def _read_adapter(folder: Path, setting: str) -> Trained:
    config = _settings(folder, setting)
    places = {part: _adapter_folder(folder, part) for part in ADAPTABLE}
    adapters = {
        part: _tensors(place / PEFT_WEIGHTS, setting)
        for part, place in places.items()
        if place == folder or place.exists()
    }
    return Trained(folder, config, _tensors(folder.parent / CONNECTOR, setting), adapters)


def _adapter_folder(folder: Path, part: str) -> Path:
    """Where the adapters of a part are; those of the language model are where PEFT's users expect them."""
    return folder if part == "language_model" else folder / part


def _read_whole(folder: Path, setting: str) -> Trained:
    config = _settings(folder, setting)
    for part in FOLDERS:
        config["model"][part]["path"] = str(folder.absolute() / part)
    return Trained(folder, config, _tensors(folder / CONNECTOR, setting), whole=True)


def _settings(folder: Path, setting: str) -> dict[str, Any]:
    file = folder / SETTINGS
    if not file.is_file():
        raise ConfigError(f"{setting}={folder} lacks {SETTINGS}, in which a run keeps the settings of what it trained")
    config = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    if not isinstance(config, dict) or "model" not in config:
        raise ConfigError(f"{setting}: {file} holds no settings of a run")
    return {str(key): value for key, value in config.items()}


def _tensors(file: Path, setting: str) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{setting}: {file} cannot be read: {str(error).splitlines()[0]}") from error


def write_adapter(model: VideoLM, trained: set[str], config: dict[str, Any], folder: Path) -> None:
    """Write ``adapter/`` and ``connector.safetensors`` into a run's folder; each is replaced as a whole.

    Args:
        model: with adapters; where it is spread over processes, all of them must call this.
        trained: names of what trained, as in checkpoints.
        config: of the run, as it goes into checkpoints.
        folder: of the run; the first process writes.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    beside = {name: whole(tensor) for name, tensor in connector(model, trained).items()}
    found = adapted_models(model)
    adapters = {part: {n: whole(t) for n, t in adapter_tensors(adapted).items()} for part, adapted in found.items()}
    if not first_rank():
        return

    def fill(place: Path) -> None:
        for part, adapted in found.items():
            settings = copy(adapted.peft_config["default"])
            settings.inference_mode = True  # as PEFT itself writes it
            settings.save_pretrained(_adapter_folder(place, part))
            write_tensors(_adapter_folder(place, part) / PEFT_WEIGHTS, adapters[part])
        (place / SETTINGS).write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")

    # The connector first: adapters that are there always have one.
    write_tensors(folder / CONNECTOR, beside)
    replace_folder(folder / ADAPTER, fill)


def connector(model: VideoLM, trained: Collection[str] = ()) -> dict[str, Tensor]:
    """The weights of the connecting parts, and those of others that trained (as in checkpoints) and are no adapters.

    Those of the language model are never among them: it trains as a whole only without adapters.
    """
    adapters = adapter_parameters(model)
    return {
        name: weight
        for name, weight in model.state_dict().items()
        if name.startswith(tuple(f"{part}." for part in CONNECTING))
        or (f"model.{name}" in trained and name not in adapters and not name.startswith("language_model."))
    }


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file that has its name when it is whole."""
    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata={"format": "pt"})
    write_whole(file, lambda opened: opened.write(content))


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder that has its name when it is full; one that had the name before is removed after that."""
    partial, old = partial_of(folder), folder.with_name(f"{folder.name}.old")
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
