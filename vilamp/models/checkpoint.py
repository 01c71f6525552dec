"""Building and filling the whole model from one published checkpoint: every tensor and parameter is accounted for."""

from __future__ import annotations

import inspect
import json
import re
from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import LlavaOnevisionConfig, PretrainedConfig, Qwen2Config, SiglipVisionConfig

from vilamp.errors import ConfigError
from vilamp.models.pretrained import local_folder, reading


@dataclass(frozen=True)
class Rule:
    """Where the tensors whose name begins with a pattern go.

    Attributes:
        pattern: regular expression, matched at the start of the name; what it matches is replaced.
        targets: what replaces it (``re.Match.expand``), one parameter of the model for each.  The first must exist; the
            others are copies, made where the model has such a parameter.
        reason: why a tensor is left out if the model has no parameter at all that begins like the first target; empty
            where that is an error.
    """

    pattern: str
    targets: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Layout:
    """The names of one kind of checkpoint.

    Attributes:
        rules: the first one that matches a tensor decides.
        kept: parameters (by regular expression) that the checkpoint does not know; they stay as they were built.
        hint: what to set where the checkpoint and the model do not fit.
    """

    rules: tuple[Rule, ...]
    kept: tuple[str, ...]
    hint: str


@dataclass
class Report:
    """What became of a checkpoint.

    Attributes:
        filled: parameter of the model -> tensor of the checkpoint.
        left_out: tensor of the checkpoint -> reason.
        kept: parameters that stay as they were built.
    """

    filled: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)


_NOT_READ = "nothing reads it: a tower layer behind model.vision_tower.hidden_layer, its last norm or its pooling head"
_BUFFER = Rule(r".*(position_ids|rotary_emb\.inv_freq)$", reason="a buffer, computed anew")

LLAVA_ONEVISION = Layout(
    rules=(
        _BUFFER,
        Rule(r"(model\.)?vision_tower\.(vision_model\.)?(post_layernorm|head)\.", reason=_NOT_READ),
        Rule(
            r"(model\.)?vision_tower\.(vision_model\.)?encoder\.layers\.(?P<n>\d+)\.",
            (r"vision_tower.siglip.encoder.layers.\g<n>.",),
            _NOT_READ,
        ),
        Rule(r"(model\.)?vision_tower\.(vision_model\.)?", ("vision_tower.siglip.",)),
        Rule(r"(model\.)?multi_modal_projector\.linear_1\.", ("projector.keyframe.0.", "projector.merged.0.")),
        Rule(r"(model\.)?multi_modal_projector\.linear_2\.", ("projector.keyframe.2.", "projector.merged.2.")),
        Rule(r"(model\.)?image_newline$", ("projector.newline",), "the model has none: model.projector.newline is off"),
        Rule(r"(language_model\.)?lm_head\.", ("language_model.lm.lm_head.",)),
        Rule(r"language_model\.model\.", ("language_model.lm.model.",)),
        Rule(r"model\.language_model\.", ("language_model.lm.model.",)),
    ),
    kept=(r"scorer\.", r"selector\.", r"merger\."),
    hint="init.path must be a LLaVA-OneVision checkpoint of Transformers, and the parts of model of its size",
)
"""Transformers' port, with its names before and since version 4.52."""

RELEASE = Layout(
    rules=(
        _BUFFER,
        Rule(r"model\.vision_tower\.vision_tower\.vision_model\.(post_layernorm|head)\.", reason=_NOT_READ),
        Rule(
            r"model\.vision_tower\.vision_tower\.vision_model\.encoder\.layers\.(?P<n>\d+)\.",
            (r"vision_tower.siglip.encoder.layers.\g<n>.",),
            _NOT_READ,
        ),
        Rule(r"model\.vision_tower\.vision_tower\.vision_model\.", ("vision_tower.siglip.",)),
        Rule(r"model\.frame_selector\.model\.", ("scorer.clip.",)),
        Rule(r"model\.mm_projector\.", ("projector.keyframe.", "projector.merged.")),
        Rule(r"model\.composer_projector\.linear_q\.", ("merger.query_map.",)),
        Rule(r"model\.composer_projector\.linear_iq\.", ("merger.patch_query_map.",)),
        Rule(r"model\.composer_projector\.linear_ik\.", ("merger.patch_anchor_map.",)),
        Rule(r"model\.composer_projector\.linear_k\.", ("merger.anchor_map.",)),
        Rule(r"model\.composer_projector\.tau$", ("merger.alpha",)),
        Rule(r"model\.image_newline$", ("projector.newline",)),
        Rule(r"lm_head\.", ("language_model.lm.lm_head.",)),
        Rule(r"model\.(?=(embed_tokens|layers|norm)\.)", ("language_model.lm.model.",)),
    ),
    kept=(r"selector\.",),
    hint="the published checkpoint needs variant=release, and the parts of model of its size",
)
"""The authors' published checkpoint."""

LAYOUTS = {"llava_onevision": LLAVA_ONEVISION, "release": RELEASE}
"""The values of ``init.layout``."""


class Init(ABC):  # noqa: B024  (what its kinds have in common is that `init` selects them)
    """What the whole model starts from, where it is not the parts' own files."""


class Checkpoint(Init):
    """One published checkpoint that the whole model starts from.

    Args:
        path: hub id or local folder.
        layout: ``llava_onevision`` or ``release``.

    Raises:
        ConfigError: no such layout, or nothing to read at ``path``.
    """

    def __init__(self, path: str, layout: str) -> None:
        if layout not in LAYOUTS:
            raise ConfigError(f"init.layout={layout} must be one of {', '.join(LAYOUTS)}")
        self.layout = layout
        self.folder = local_folder(path, "init.path")
        with reading(str(self.folder), "init.path"):
            self._config: dict[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))

    @property
    def holds_scorer(self) -> bool:
        """Whether the scorer's weights are in the checkpoint too."""
        return self.layout == "release"

    def language_model(self) -> dict[str, Any]:
        """What the language model is built with instead of its own ``path``: architecture and tokenizer."""
        config: PretrainedConfig
        if self.layout == "llava_onevision":
            config = self._llava().text_config
        else:
            # The authors' file has Qwen2's settings beside their own, which no class of Transformers knows.
            known = {*inspect.signature(Qwen2Config).parameters, "rope_theta", "rope_scaling"} - {"architectures"}
            config = Qwen2Config(**{key: value for key, value in self._config.items() if key in known})
        return {"architecture": config.to_dict(), "tokenizer": self._holding("tokenizer_config.json")}

    def vision_tower(self) -> dict[str, Any]:
        """What the tower is built with instead of its own ``path``; the authors' file says no more than a hub id."""
        if self.layout == "release":
            return {}
        config = self._llava().vision_config
        if not isinstance(config, SiglipVisionConfig):
            raise ConfigError(f"init.path={self.folder} has a vision tower of another kind: {type(config).__name__}")
        return {"architecture": config.to_dict(), "preprocessor": self._holding("preprocessor_config.json")}

    def hidden_layer(self) -> int | None:
        """The tower's layer that the checkpoint's projector reads; None for that of the model's own file."""
        if self.layout == "release":
            return None
        layer = self._llava().vision_feature_layer
        if not isinstance(layer, int):
            raise ConfigError(f"init.path={self.folder} reads several layers of its tower: {layer}; one is supported")
        return layer

    def fill(self, model: nn.Module) -> Report:
        """:func:`fill` with the checkpoint's layout."""
        return fill(model, self.folder, LAYOUTS[self.layout])

    def _llava(self) -> LlavaOnevisionConfig:
        kind = self._config.get("model_type")
        if kind != LlavaOnevisionConfig.model_type:
            raise ConfigError(f"init.path={self.folder} is a checkpoint of {kind}; {LLAVA_ONEVISION.hint}")
        return LlavaOnevisionConfig(**self._config)

    def _holding(self, file: str) -> str | None:
        """The folder if it holds a file; None for the part's own ``path``."""
        return str(self.folder) if (self.folder / file).is_file() else None


def fill(model: nn.Module, path: str | Path, layout: Layout, *, device: torch.device | str = "cpu") -> Report:
    """Replace the parameters of a model by the tensors of a checkpoint, one at a time.

    Each tensor is cast to its parameter's dtype and moved to ``device`` before the next is read, so that parameters on
    the meta device never cost memory twice.

    Args:
        model: with parts named as in :class:`~vilamp.models.video_lm.VideoLM`.
        path: a folder with ``model.safetensors.index.json`` and its shards, or with ``model.safetensors``.
        layout: the checkpoint's names.
        device: where the parameters go.

    Raises:
        ConfigError: a tensor without a rule or a place, another shape, or a parameter that nothing filled.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    report = Report()
    for file, names in _shards(Path(path)):
        try:
            with safe_open(file, framework="pt") as tensors:
                _check_names(file, names, set(tensors.keys()))
                for name in names or sorted(tensors.keys()):
                    targets = _targets(name, layout, parameters, report)
                    shape = tuple(tensors.get_slice(name).get_shape())
                    for target in targets:
                        _put(model, target, parameters[target], name, shape, tensors, device, layout)
                        report.filled[target] = name
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"init.path={path}: cannot read {file.name}: {error}") from error
    _tie(model, report, parameters)
    _check_filled(parameters, layout, report, path)
    return report


def _shards(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The files with the names to read from each; no names for a file that is the whole checkpoint."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        for file in sorted(set(places.values())):
            yield folder / file, sorted(name for name, place in places.items() if place == file)
    elif single.is_file():
        yield single, []
    else:
        raise ConfigError(f"init.path={folder} holds neither {index.name} nor {single.name}")


def _check_names(file: Path, listed: list[str], held: set[str]) -> None:
    wrong = sorted(held.symmetric_difference(listed)) if listed else []
    if wrong:
        raise ConfigError(f"{file} and the index of init.path disagree on {wrong[:5]} (of {len(wrong)})")


def _targets(name: str, layout: Layout, parameters: dict[str, nn.Parameter], report: Report) -> list[str]:
    """The parameters that a tensor fills; none, and a line in the report, if a rule leaves it out."""
    for rule in layout.rules:
        match = re.match(rule.pattern, name)
        if match is None:
            continue
        prefixes = [match.expand(target) for target in rule.targets]
        places = [prefix + name[match.end() :] for prefix in prefixes]
        there = [place for place in places if place in parameters]
        if places and places[0] in there:
            return there
        if not rule.reason or any(known.startswith(prefix) for prefix in prefixes for known in parameters):
            raise ConfigError(f"init: the model has no {places[0]} for the checkpoint's {name}; {layout.hint}")
        report.left_out[name] = rule.reason
        return []
    raise ConfigError(f"init: the checkpoint's {name} is known to no rule; {layout.hint}")


def _put(
    model: nn.Module,
    target: str,
    old: nn.Parameter,
    name: str,
    shape: tuple[int, ...],
    tensors: safe_open,
    device: torch.device | str,
    layout: Layout,
) -> None:
    if shape != tuple(old.shape):
        raise ConfigError(
            f"init: the checkpoint's {name} has shape {shape}, the model's {target} {tuple(old.shape)}; {layout.hint}"
        )
    # A copy even where nothing is cast: a parameter must not be a window on the file.
    value = tensors.get_tensor(name).to(device=device, dtype=old.dtype, copy=True)
    parent, _, leaf = target.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Parameter(value, requires_grad=old.requires_grad))


def _tie(model: nn.Module, report: Report, parameters: dict[str, nn.Parameter]) -> None:
    """An output layer that is the embedding (small Qwen2 models) is not in the file twice."""
    head, embedding = "language_model.lm.lm_head.weight", "language_model.lm.model.embed_tokens.weight"
    if head not in parameters or embedding not in report.filled:
        return
    lm = model.get_submodule("language_model.lm")
    if lm.config.tie_word_embeddings:  # type: ignore[union-attr]
        lm.get_submodule("lm_head").weight = lm.get_submodule("model.embed_tokens").weight
        report.filled.setdefault(head, report.filled[embedding])


def _check_filled(parameters: dict[str, nn.Parameter], layout: Layout, report: Report, path: str | Path) -> None:
    missing = []
    for name, parameter in parameters.items():
        if name in report.filled:
            continue
        # What is kept must have been built with values: a parameter on the meta device has none.
        if any(re.match(pattern, name) for pattern in layout.kept) and not parameter.is_meta:
            report.kept.append(name)
        else:
            missing.append(name)
    if missing:
        raise ConfigError(f"init.path={path} fills no {missing[:5]} (of {len(missing)}); {layout.hint}")
