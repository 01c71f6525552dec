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
from vilamp.decoders.auto import AutoDecoder
from vilamp.errors import ConfigError, PluginError, VilampError
from vilamp.interfaces import FrameMerger, FrameSelector, VideoDecoder
from vilamp.models.checkpoint import Checkpoint, Init
from vilamp.models.language_model import LanguageModel
from vilamp.models.lora import ADAPTABLE, Adapters, ContinuedLora, merge_adapters
from vilamp.models.projector import Projector
from vilamp.models.scorer import ClipScorer
from vilamp.models.text import PromptEncoder
from vilamp.models.video_lm import HOW_TO_FIT, VideoLM
from vilamp.models.vision_tower import SiglipTower
from vilamp.samples import EncodeQuestion
from vilamp.training.optim import PartwiseAdamW
from vilamp.training.trained import FromRun, Trained

T = TypeVar("T")

RANDOM = "random"
"""The ``model.projector.path`` of a projector that starts without training."""

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
    except (Exception, SystemExit) as error:  # an import runs foreign code, which may raise anything
        raise PluginError(f"{setting}: cannot import {node['_target_']}: {_root_cause(error)}") from error
    parameters = inspect.signature(target).parameters
    _check_types(node, parameters.values(), setting)
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


def _check_types(node: DictConfig, parameters: Iterable[inspect.Parameter], setting: str) -> None:
    """Raise ConfigError where a value is of another kind: most constructors would take it, or fail on it much later."""
    for parameter in parameters:
        takes = set(re.findall(r"\w+", str(parameter.annotation)))  # as written, since not all of them can be resolved
        value = node.get(parameter.name)
        where = f"{setting}.{parameter.name}"
        if isinstance(value, str) and "str" not in takes and takes & {"int", "float"}:
            raise ConfigError(f"{where} must be a number, got {value!r}")
        if isinstance(value, str) and takes <= {"bool", "None", "Optional"} and "bool" in takes:
            raise ConfigError(f"{where} must be true or false, got {value!r}")  # any text would count as true
        if isinstance(value, float) and takes <= {"int", "None", "Optional"} and "int" in takes:
            raise ConfigError(f"{where} must be a whole number, got {value!r}")


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
    """The six parts and their composition, as the configuration has them.

    Args:
        cfg: as composed.
        weights: False builds scorer, vision tower and language model from their ``config.json`` alone, with parameters
            on the meta device; ``init`` is then not looked at.

    Raises:
        ConfigError: a setting that cannot be, parts that cannot be loaded, or a checkpoint that does not fit them.
    """
    init = build_object(cfg.init, Init, "init") if weights and cfg.get("init") else None
    lora = build_object(cfg.lora, Adapters, "lora") if cfg.get("lora") else None
    if isinstance(init, FromRun):
        model = _model_of_run(cfg, init.trained, adapters_stay=isinstance(lora, ContinuedLora))
    else:
        model = _new_model(cfg, init if isinstance(init, Checkpoint) else None, weights)
    if lora is not None:  # after the filling, because an adapter renames the weights beside which it stands
        lora.adapt(model, weights=weights, bases=_bases(cfg, init))
    return model


def _bases(cfg: DictConfig, init: Init | None) -> dict[str, str]:
    """Part -> hub id or path of what adapters would stand beside."""
    if isinstance(init, FromRun):
        return {part: init.base(part) for part in ADAPTABLE}
    return {part: str((cfg.get("init") or cfg.model[part]).path) for part in ADAPTABLE}


def _model_of_run(cfg: DictConfig, trained: Trained, *, adapters_stay: bool) -> VideoLM:
    """The model that a run ended with: what that run began with, filled with what it trained.

    Args:
        cfg: selector, merger and settings are taken from here; the parts' files, and what they were filled with and
            adapted by, from the run.
        trained: of the run.
        adapters_stay: False merges its adapters into the weights.
    """
    before = trained.configuration()
    began = _with(cfg, init=before.get("init"), lora=before.get("lora"))
    for part in ("scorer", "vision_tower", "language_model", "projector"):
        began.model[part].path = before.model[part].path
    began.model.vision_tower.hidden_layer = before.model.vision_tower.hidden_layer
    if began.lora and not adapters_stay and began.lora.get("quantize"):
        began.lora.quantize = False  # merged into whole weights, nothing is rounded to 4 bits again
    model = build_model(began)
    model.init_report = trained.fill(model)
    if not adapters_stay:
        merge_adapters(model)
    return model


def _new_model(cfg: DictConfig, checkpoint: Checkpoint | None, weights: bool) -> VideoLM:
    """The six parts from their own files, or from one published checkpoint."""
    projector_node = _projector_node(cfg.model.projector, filled=checkpoint is not None or not weights)
    scorer, tower, language_model = _pretrained_parts(cfg.model, checkpoint, weights)
    selector = build_selector(cfg.selector, scorer.dim)
    merger = build_merger(cfg.merger, tower.dim, language_model.dim, scorer.dim)
    projector = build_object(
        projector_node,
        Projector,
        "model.projector",
        vision_dim=tower.dim,
        language_dim=language_model.dim,
        merges=merger.space == "vision" and merger.tokens_per_frame > 0,
    )
    model = VideoLM(
        scorer=scorer,
        selector=selector,
        vision_tower=tower,
        merger=merger,
        projector=projector,
        language_model=language_model,
        num_keyframes=cfg.num_keyframes,
        chunk_size=cfg.model.chunk_size,
        anchor=cfg.model.anchor,
        merged_step=cfg.model.get("merged_step", 1.0),  # runs from before it was there
    )
    if checkpoint is not None:
        model.init_report = checkpoint.fill(model)
    return model


def _pretrained_parts(
    node: DictConfig, checkpoint: Checkpoint | None, weights: bool
) -> tuple[ClipScorer, SiglipTower, LanguageModel]:
    """Scorer, tower and language model, without weights where a checkpoint will fill them."""
    tower_node, of_tower, of_lm = node.vision_tower, {}, {}
    own, own_scorer = weights, weights
    if checkpoint is not None:
        own, own_scorer = False, not checkpoint.holds_scorer
        of_tower, of_lm = checkpoint.vision_tower(), checkpoint.language_model()
        layer = checkpoint.hidden_layer()
        if layer is not None:
            tower_node = _with(tower_node, hidden_layer=layer)
    scorer = build_object(node.scorer, ClipScorer, "model.scorer", weights=own_scorer)
    tower = build_object(tower_node, SiglipTower, "model.vision_tower", weights=own, **of_tower)
    lm = build_object(node.language_model, LanguageModel, "model.language_model", weights=own, **of_lm)
    return scorer, tower, lm


def _projector_node(node: DictConfig, *, filled: bool) -> DictConfig:
    """What the projector is built from, which has random weights only if that was asked for.

    Args:
        node: ``model.projector``.
        filled: a checkpoint will fill it, or nothing needs its weights; then no file of another model is read.

    Raises:
        ConfigError: nothing says which weights it has.
    """
    if not filled and node.get("path", RANDOM) is None:
        raise ConfigError(
            "nothing says which weights the projector starts from: set init=llava_onevision or init=release, or "
            f"model.projector.path to a safetensors file, or to {RANDOM}"
        )
    return _with(node, path=None) if filled or node.get("path") == RANDOM else node


def _with(node: DictConfig, **settings: Any) -> DictConfig:
    """A copy of a node in which some settings have another value."""
    changed = node.copy()
    OmegaConf.set_struct(changed, False)
    changed.update(settings)
    return changed


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
        scorer_path=model.scorer.tokenizer,
        language_model_path=model.language_model.tokenizer,
        max_query_tokens=model.scorer.context,
        max_text_tokens=room,
    )


def build_data(cfg: DictConfig, encode: EncodeQuestion, scorer: ClipScorer | None = None) -> VideoDataModule:
    """The data of ``data``, read by ``decoder``; a checkpoint from before there were decoders has none.

    Args:
        cfg: as composed.
        encode: turns a question into token ids.
        scorer: whose embeddings ``data.embedding_cache`` keeps, with its weights and frozen where it is to be frozen.

    Raises:
        ConfigError: a setting that cannot be; embeddings are to be kept and there is no scorer, or it trains.
    """
    node = cfg.get("decoder")
    decoder = build_object(node, VideoDecoder, "decoder") if node else AutoDecoder()
    digest = "" if cfg.data.get("embedding_cache") is None else _digest_of_frozen(scorer, cfg.data.embedding_cache)
    return build_object(cfg.data, VideoDataModule, "data", encode=encode, decoder=decoder, scorer=digest)


def _digest_of_frozen(scorer: ClipScorer | None, folder: str) -> str:
    if scorer is None or any(parameter.requires_grad for parameter in scorer.parameters()):
        raise ConfigError(
            f"data.embedding_cache={folder} keeps the embeddings of a scorer that does not change, and this one trains "
            "or is not there; set optim.lr.scorer=null or data.embedding_cache=null"
        )
    return scorer.digest()


def build_optim(cfg: DictConfig) -> PartwiseAdamW:
    """The optimiser's settings of ``optim``."""
    return build_object(cfg.optim, PartwiseAdamW, "optim")


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration in plain containers, as loggers get it."""
    container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def portable(cfg: DictConfig) -> dict[str, Any]:
    """The configuration in plain containers, as a run leaves it: resolved but for where things lie.

    ``${asset:...}`` and ``${paths...}`` stay as they are, also where a value takes them from another one, so that they
    are resolved anew wherever a checkpoint is read, and are the same in runs of different checkouts.
    """
    return plain(OmegaConf.create(_keep_locations(OmegaConf.to_container(cfg, resolve=False, throw_on_missing=True))))


def _keep_locations(node: Any) -> Any:
    """The node with a backslash before every interpolation of a location, which resolving then only takes away."""
    if isinstance(node, dict):
        return {key: _keep_locations(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_keep_locations(value) for value in node]
    return re.sub(r"\$\{(?=\s*(asset:|paths[.\[]))", r"\\${", node) if isinstance(node, str) else node
