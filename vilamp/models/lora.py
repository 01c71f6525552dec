"""LoRA through PEFT: low-rank adapters beside frozen linear layers of the language model and of the vision tower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from vilamp.errors import ConfigError
from vilamp.models.video_lm import VideoLM

PREFIX = "lora_"
"""What the names of an adapter's own modules begin with."""
_OF_PEFT = "base_model.model."
"""What PEFT's files put before the names of the adapted model."""
ADAPTABLE = {"language_model": "lm", "vision_tower": "siglip"}
"""The parts that adapters may stand in -> the attribute that has their model of Transformers."""


class Adapters(ABC):
    """What ``lora`` selects."""

    @abstractmethod
    def adapt(self, model: VideoLM, *, weights: bool = True, bases: Mapping[str, str] | None = None) -> None:
        """See to it that the model has adapters.

        Args:
            model: changed in place.
            weights: False leaves new ones on the meta device, as the model's own parameters are.
            bases: part -> hub id or path of what new ones stand beside, for PEFT's ``adapter_config.json``.
        """


class Lora(Adapters):
    """New adapters, which change nothing until they are trained.

    Args:
        rank: r, the width of an adapter in the language model.
        vision_rank: the same of those beside all linear layers of the vision tower that are run; None: none there.
        alpha: an adapter's output is scaled by alpha / r.
        dropout: of an adapter's input in training.
        targets: endings of the names of the language model's linear layers; None for all in its blocks.
        rslora: scale by alpha / sqrt(r) instead (rsLoRA, Kalajdzievski 2023).
        dora: adapters turn the rows of a layer's weight and a learned vector scales them (DoRA, Liu et al. 2024).
        quantize: the language model's adapted layers hold their frozen weights in 4 bits (QLoRA, Dettmers et al. 2023).

    Raises:
        ConfigError: a value out of range, or what ``quantize`` needs is not there.
    """

    def __init__(
        self,
        rank: int = 64,
        vision_rank: int | None = None,
        alpha: float = 16,
        dropout: float = 0.05,
        targets: Sequence[str] | None = None,
        rslora: bool = False,
        dora: bool = False,
        quantize: bool = False,
    ) -> None:
        if min(rank, 1 if vision_rank is None else vision_rank) < 1 or alpha <= 0 or not 0 <= dropout < 1:
            raise ConfigError(
                "lora needs rank >= 1, vision_rank >= 1 or null, alpha > 0 and 0 <= dropout < 1, got "
                f"rank={rank}, vision_rank={vision_rank}, alpha={alpha}, dropout={dropout}"
            )
        if quantize and find_spec("bitsandbytes") is None:
            raise ConfigError(
                "lora.quantize=true (lora=qlora) needs bitsandbytes: pip install 'vilamp-lightning[qlora]', "
                "or take lora=default"
            )
        self.rank = rank
        self.vision_rank = vision_rank
        self.alpha = alpha
        self.dropout = dropout
        self.targets = None if targets is None else tuple(targets)
        self.rslora = rslora
        self.dora = dora
        self.quantize = quantize

    def adapt(self, model: VideoLM, *, weights: bool = True, bases: Mapping[str, str] | None = None) -> None:
        """Put adapters into the language model, and into the vision tower if they have a rank there.

        Raises:
            ConfigError: no layer has such a name.
        """
        bases = bases or {}
        lm = model.language_model.lm
        chosen = self._chosen(lm)
        if self.quantize and weights:
            _quantize(lm, [name for name in _linear(lm) if any(_ends(name, ending) for ending in chosen)])
        self._inject(
            lm,
            weights,
            r=self.rank,
            target_modules=chosen,
            task_type="CAUSAL_LM",
            base_model_name_or_path=bases.get("language_model", ""),
        )
        if self.vision_rank is not None:
            siglip = model.vision_tower.siglip
            self._inject(
                siglip,
                weights,
                r=self.vision_rank,
                target_modules=_endings(siglip),
                # By number: the file may have layers behind those that are run, and a head with layers of such names.
                layers_to_transform=list(range(len(siglip.encoder.layers))),
                layers_pattern="layers",
                base_model_name_or_path=bases.get("vision_tower", ""),
            )

    def _chosen(self, lm: nn.Module) -> list[str]:
        """Endings of the names of the language model's layers that get adapters."""
        endings = _endings(lm)
        lost = [ending for ending in self.targets or () if not any(_ends(name, ending) for name in _linear(lm))]
        if lost:
            raise ConfigError(
                f"lora.targets={lost[0]} is no linear layer of the language model; there are: {', '.join(endings)}"
            )
        return endings if self.targets is None else list(self.targets)

    def _inject(self, module: nn.Module, weights: bool, **settings: Any) -> None:
        config = LoraConfig(
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            use_rslora=self.rslora,
            use_dora=self.dora,
            inference_mode=False,
            **settings,
        )
        inject_adapter_in_model(config, module, low_cpu_mem_usage=not weights)


class ContinuedLora(Adapters):
    """The adapters of the run that ``init=run`` starts from, which go on training with their own settings."""

    def adapt(self, model: VideoLM, *, weights: bool = True, bases: Mapping[str, str] | None = None) -> None:
        """Leave them as they are.

        Raises:
            ConfigError: there are none.
        """
        if not adapted_models(model):
            raise ConfigError(
                "lora=continue goes on with the adapters of init=run, but what init.path names has none; take "
                "lora=default for new ones"
            )


def _linear(model: Any) -> list[str]:
    """Names of the linear layers in a model of Transformers, but for a language model's head."""
    head = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]


def _endings(model: nn.Module) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in _linear(model)})


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def _quantize(lm: Any, names: Sequence[str]) -> None:
    """Give linear layers weights in 4 bits; they are packed when they come to the device that computes."""
    import bitsandbytes as bnb

    for name in names:
        old = lm.get_submodule(name)
        assert isinstance(old, nn.Linear)
        new = bnb.nn.Linear4bit(
            old.in_features,
            old.out_features,
            bias=old.bias is not None,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
            device="meta",
        )
        new.weight = bnb.nn.Params4bit(old.weight.data, requires_grad=False, quant_type="nf4")
        new.bias = old.bias
        _replace(lm, name, new)
    lm.is_loaded_in_4bit = True  # by which PEFT knows that it has to look for such layers


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)


def adapter_parameters(part: nn.Module) -> set[str]:
    """Names of the parameters that belong to adapters; none in a part without adapters."""
    return {name for name, _ in part.named_parameters() if any(step.startswith(PREFIX) for step in name.split("."))}


def adapted_models(model: VideoLM) -> dict[str, Any]:
    """Part -> its model of Transformers, of the parts that have adapters."""
    held = {part: model.get_submodule(part).get_submodule(name) for part, name in ADAPTABLE.items()}
    return {part: module for part, module in held.items() if adapter_parameters(module)}


def merge_adapters(model: VideoLM) -> None:
    """Add what the adapters do to the weights beside which they stand, and take them away; in place.

    Raises:
        ConfigError: the result is not finite.
    """
    for part, adapted in adapted_models(model).items():
        for name, module in list(adapted.named_modules()):
            if not isinstance(module, BaseTunerLayer):
                continue
            base = module.get_base_layer()
            if base.weight.is_floating_point():  # else it is packed, and PEFT knows how
                base.weight.data = base.weight.data.float()  # an adapter's part may be smaller than its last digit
            try:
                module.merge(safe_merge=True)
            except ValueError as error:
                raise ConfigError(f"the adapter of the {part}'s {name} cannot be merged: {error}") from error
            _replace(adapted, name, base)
        del adapted.peft_config


def adapter_tensors(adapted: nn.Module) -> dict[str, Tensor]:
    """The adapters' weights in one of :func:`adapted_models`, under the names that they have in PEFT's files."""
    tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {f"{_OF_PEFT}{name}": tensor.contiguous() for name, tensor in tensors.items()}


def load_adapter(adapted: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill the adapters from what PEFT's file holds.

    Args:
        adapted: one of :func:`adapted_models`, with adapters of the same settings.
        tensors: as :func:`adapter_tensors` gives them.
        source: their file, for messages.

    Raises:
        ConfigError: they are of other adapters.
    """
    wanted, given = set(adapter_tensors(adapted)), set(tensors)
    if wanted != given:
        raise ConfigError(
            f"{source} holds other adapters than those that its configuration asks for: missing "
            f"{sorted(wanted - given)[:3]}, left over {sorted(given - wanted)[:3]} (the first three of each)"
        )
    try:
        set_peft_model_state_dict(adapted, {n.removeprefix(_OF_PEFT): t for n, t in tensors.items()})
    except RuntimeError as error:
        raise ConfigError(f"{source} holds adapters of another size: {str(error).splitlines()[-1].strip()}") from error
