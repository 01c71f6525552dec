"""Configuration -> objects: the only place that instantiates, and it type-checks what it built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from hydra._internal.utils import _locate  # what get_object() calls; that would also log each error by itself
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vilamp.data.module import VideoDataModule
from vilamp.errors import ConfigError, PluginError, VilampError
from vilamp.interfaces import FrameMerger, FrameSelector
from vilamp.models.language_model import LanguageModel
from vilamp.models.lora import Lora
from vilamp.models.projector import Projector
from vilamp.models.scorer import ClipScorer
from vilamp.models.text import PromptEncoder
from vilamp.models.video_lm import HOW_TO_FIT, VideoLM
from vilamp.models.vision_tower import SiglipTower
from vilamp.samples import EncodeQuestion
from vilamp.training.optim import PartwiseAdamW

T = TypeVar("T")

MIN_TEXT_TOKENS = 64
"""A context that leaves less than this beside the longest video is a mistake in the configuration."""


def build_object(node: DictConfig, base: type[T], setting: str, **runtime: Any) -> T:
    """Instantiate one node of the configuration.

    Args:
        node: ``_target_`` and constructor arguments.
        base: what the result must be an instance of.
        setting: the node's place in the configuration, for messages (``merger``, ``model.scorer``).
        **runtime: values known only now (widths); each is passed if the constructor names it, else left out.

    Raises:
        ConfigError: no ``_target_``, a text where a number belongs, or a value that is given at run time.
        PluginError: the target cannot be imported or constructed (with the root cause), or has the wrong type.
    """
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise ConfigError(f"{setting} needs a _target_, got {node!r}; choose one with {setting.replace('.', '/')}=NAME")
    try:
        target = _locate(node["_target_"])
    except Exception as error:  # an import runs foreign code, which may raise anything
        raise PluginError(f"{setting}: cannot import {node['_target_']}: {_root_cause(error)}") from error
    parameters = inspect.signature(target).parameters
    _check_numbers(node, parameters.values(), setting)
    wanted = {name: value for name, value in runtime.items() if name in parameters}
    twice = sorted(set(wanted) & set(node))
    if twice:
        raise ConfigError(f"{setting}.{twice[0]} is set by the model's widths; take it out of the configuration")
    try:
        built = instantiate(node, _convert_="object", **wanted)
    except InstantiationException as error:
        told = [cause for cause in _causes(error) if isinstance(cause, VilampError)]
        if told:
            raise told[-1] from error
        raise PluginError(f"{setting}: cannot construct {node['_target_']}: {_root_cause(error)}") from error
    if not isinstance(built, base):
        raise PluginError(f"{setting}: {node['_target_']} is a {type(built).__name__}, expected a {base.__name__}")
    return built


def _check_numbers(node: DictConfig, parameters: Iterable[inspect.Parameter], setting: str) -> None:
    """Raise ConfigError where a text was given for a number: most constructors would fail on it much later."""
    for parameter in parameters:
        takes = set(re.findall(r"\w+", str(parameter.annotation)))  # as written, since not all of them can be resolved
        value = node.get(parameter.name)
        if isinstance(value, str) and "str" not in takes and takes & {"int", "float"}:
            raise ConfigError(f"{setting}.{parameter.name} must be a number, got {value!r}")


def _causes(error: BaseException) -> list[BaseException]:
    """The error, its cause, and so on to the root."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def _root_cause(error: BaseException) -> str:
    root = _causes(error)[-1]
    return f"{type(root).__name__}: {root}"


def build_model(cfg: DictConfig, *, weights: bool = True) -> VideoLM:
    """The six parts and their composition, from ``model``, ``lora``, ``selector``, ``merger`` and ``num_keyframes``.

    Args:
        cfg: as composed.
        weights: False builds scorer, vision tower and language model from their ``config.json`` alone, with parameters
            on the meta device.
    """
    scorer = build_object(cfg.model.scorer, ClipScorer, "model.scorer", weights=weights)
    tower = build_object(cfg.model.vision_tower, SiglipTower, "model.vision_tower", weights=weights)
    language_model = build_object(cfg.model.language_model, LanguageModel, "model.language_model", weights=weights)
    if cfg.get("lora"):
        build_object(cfg.lora, Lora, "lora").adapt(language_model, weights=weights)
    selector = build_selector(cfg.selector, scorer.dim)
    merger = build_merger(cfg.merger, tower.dim, language_model.dim, scorer.dim)
    projector = build_object(
        cfg.model.projector,
        Projector,
        "model.projector",
        vision_dim=tower.dim,
        language_dim=language_model.dim,
        merges=merger.space == "vision" and merger.tokens_per_frame > 0,
    )
    return VideoLM(
        scorer=scorer,
        selector=selector,
        vision_tower=tower,
        merger=merger,
        projector=projector,
        language_model=language_model,
        num_keyframes=cfg.num_keyframes,
        chunk_size=cfg.model.chunk_size,
        anchor=cfg.model.anchor,
    )


def build_selector(node: DictConfig, query_dim: int) -> FrameSelector:
    """A selector for embeddings of the scorer's width."""
    return build_object(node, FrameSelector, "selector", query_dim=query_dim)


def build_merger(node: DictConfig, vision_dim: int, language_dim: int, query_dim: int) -> FrameMerger:
    """A merger at the width of the space that it works in."""

    def built(dim: int) -> FrameMerger:
        return build_object(node, FrameMerger, "merger", dim=dim, query_dim=query_dim)

    merger = built(vision_dim)
    return merger if merger.space == "vision" else built(language_dim)


def build_encoder(cfg: DictConfig, model: VideoLM) -> PromptEncoder:
    """The tokenisers with the room that the model leaves for text.

    Raises:
        ConfigError: the longest possible video leaves no room in the language model's context.
    """
    visual = model.max_visual_tokens(cfg.data.max_frames)
    room = model.language_model.context - visual
    if room < MIN_TEXT_TOKENS:
        raise ConfigError(
            f"a video of data.max_frames={cfg.data.max_frames} frames can become {visual} visual tokens, which leaves "
            f"{room} of the language model's {model.language_model.context}; {HOW_TO_FIT}"
        )
    return PromptEncoder(
        scorer_path=cfg.model.scorer.path,
        language_model_path=cfg.model.language_model.path,
        max_query_tokens=model.scorer.context,
        max_text_tokens=room,
    )


def build_data(cfg: DictConfig, encode: EncodeQuestion) -> VideoDataModule:
    """The data of ``data``."""
    return build_object(cfg.data, VideoDataModule, "data", encode=encode)


def build_optim(cfg: DictConfig) -> PartwiseAdamW:
    """The optimiser's settings of ``optim``."""
    return build_object(cfg.optim, PartwiseAdamW, "optim")


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration in plain containers, as it goes into checkpoints and files."""
    container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
