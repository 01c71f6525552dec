"""The language model: any causal model of Transformers, fed with embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from vilamp.errors import ConfigError
from vilamp.models.pretrained import build_empty, load_pretrained, reading
from vilamp.samples import IGNORED

SETTING = "model.language_model.path"


@dataclass(frozen=True)
class AnswerLoss:
    """What teacher forcing says about a batch of B answers.

    Attributes:
        total: scalar, cross entropy summed over all answer tokens.
        tokens: how many answer tokens there are.
        exact: bool[B]: would greedy decoding give this answer, to the letter and with its end?  It would if and only if
            every answer token is the most likely one after the right ones before it, which is what is checked.
    """

    total: Tensor
    tokens: int
    exact: Tensor


@dataclass(frozen=True)
class Greedy:
    """What greedy decoding gives.

    Attributes:
        ids: int64[T], without the end token.
        probability: that sampling would give just this, its end included where it ended by itself.
    """

    ids: Tensor
    probability: float


class LanguageModel(nn.Module):
    """A causal language model that reads embeddings and answers.

    Args:
        path: hub id or local folder.
        gradient_checkpointing: in training keep each layer's input alone, and compute the layer again for its gradient.
        rope: replaces entries of the ``rope_parameters`` of its ``config.json``, as Transformers reads them: for
            sequences longer than the model was trained on, for instance YaRN (arXiv 2309.00071).
        weights: runtime; False leaves the parameters on the meta device.
        architecture: runtime; used without ``weights`` instead of what the ``config.json`` at ``path`` holds.
        tokenizer: runtime; hub id or local folder of the tokenizer, if it is not ``path``.
    """

    def __init__(
        self,
        path: str,
        gradient_checkpointing: bool = False,
        rope: Mapping[str, Any] | None = None,
        *,
        weights: bool = True,
        architecture: dict[str, Any] | None = None,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        if architecture is not None and not weights:
            config = AutoConfig.for_model(**architecture)
        else:
            with reading(path, SETTING):
                config = AutoConfig.from_pretrained(path)
        if rope is not None:
            _replace_rope(config, rope)
        if weights:
            self.lm = load_pretrained(AutoModelForCausalLM, path, SETTING, config=config)
        else:
            self.lm = build_empty(AutoModelForCausalLM, path, SETTING, config=config)
        self.tokenizer = tokenizer or path
        """Hub id or local folder of the tokenizer whose ids this model reads."""
        if gradient_checkpointing:
            self.lm.activation_checkpointing_enable({"use_reentrant": False})
        self._checkpointed_layers = self.blocks if gradient_checkpointing else []
        self.dim: int = self.lm.config.hidden_size
        """D, the width of the language space."""
        self.context: int = self.lm.config.max_position_embeddings
        """The longest sequence, in tokens."""

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's layers, from the first to the last."""
        return [module for module in self.lm.modules() if isinstance(module, GradientCheckpointingLayer)]

    def embed(self, ids: Tensor) -> Tensor:
        """int64[T] -> float[T, D]."""
        embedding = self.lm.get_input_embeddings()
        return embedding(ids.to(embedding.weight.device))

    def answer_loss(
        self, sequences: Sequence[Tensor], labels: Sequence[Tensor], positions: Sequence[Tensor] | None = None
    ) -> AnswerLoss:
        """Score B answers, with logits at the answers' positions only.

        Args:
            sequences: B times float[L, D], of different length.
            labels: B times int64[L], :data:`~vilamp.samples.IGNORED` outside the answer.
            positions: B times float[L], where its tokens stand; None: one behind the other.
        """
        # Padding stands on the right, where a causal model never looks from inside a sequence: it needs no mask.
        embeddings = pad_sequence(list(sequences), batch_first=True)  # [B, L, D]
        with self._checkpointed():
            hidden = self.lm.model(
                inputs_embeds=embeddings, use_cache=False, **_places(embeddings, positions)
            ).last_hidden_state
        targets = pad_sequence([row[1:] for row in labels], batch_first=True, padding_value=IGNORED)
        targets = targets.to(hidden.device)  # [B, L - 1]: the token after each position
        row, position = (targets != IGNORED).nonzero(as_tuple=True)  # [A] each, A answer tokens
        logits = self.lm.lm_head(hidden[row, position]).float()  # [A, vocabulary]
        target = targets[row, position]
        wrong = torch.zeros(len(sequences), dtype=torch.int64, device=hidden.device)
        wrong.index_add_(0, row, (logits.argmax(-1) != target).long())
        return AnswerLoss(F.cross_entropy(logits, target, reduction="sum"), len(target), wrong == 0)

    @contextmanager
    def _checkpointed(self) -> Iterator[None]:
        """Let a frozen model's layers keep their inputs alone too, where a gradient goes through to what feeds it.

        Transformers does so in training mode only.  The mode of what is inside the layers stays, with its dropout.
        """
        modes = [layer.training for layer in self._checkpointed_layers]
        try:
            for layer in self._checkpointed_layers if torch.is_grad_enabled() else ():
                layer.training = True
            yield
        finally:
            for layer, mode in zip(self._checkpointed_layers, modes, strict=True):
                layer.training = mode

    def save(self, folder: Path) -> None:
        """Write it for ``AutoModelForCausalLM.from_pretrained``, without its tokenizer."""
        self.lm.save_pretrained(folder)

    def generate(self, sequence: Tensor, max_new_tokens: int, end: int, positions: Tensor | None = None) -> Tensor:
        """Greedy continuation of float[L, D] -> int64[up to max_new_tokens], without the end token.

        ``positions`` are those of :meth:`answer_loss`; what is generated goes on from the last one.
        """
        return self.answer(sequence, max_new_tokens, end, positions).ids

    @torch.no_grad()
    def answer(self, sequence: Tensor, max_new_tokens: int, end: int, positions: Tensor | None = None) -> Greedy:
        """The same, and how sure the model is of it."""
        mask = torch.ones(1, len(sequence), dtype=torch.int64, device=sequence.device)
        places = {"attention_mask": mask} | _places(sequence[None], None if positions is None else [positions])
        said = self.lm.generate(
            inputs_embeds=sequence[None],
            **places,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
            return_dict_in_generate=True,
            output_logits=True,
        )
        ids = said.sequences[0]
        logits = torch.cat(said.logits).float()  # [T, vocabulary]
        probability = logits.log_softmax(-1).gather(1, ids[:, None]).sum().exp()
        return Greedy(ids[ids != end], float(probability))


def _places(embeddings: Tensor, positions: Sequence[Tensor] | None) -> dict[str, Tensor]:
    """What tells a model of Transformers where the tokens of float[B, L, D] stand; nothing where that is as usual.

    Without a mask it would take every step other than 1 for the beginning of another sequence in the same row.
    """
    if positions is None:
        return {}
    ids = pad_sequence(list(positions), batch_first=True).to(embeddings.device)
    return {"position_ids": ids, "attention_mask": torch.ones(ids.shape, dtype=torch.int64, device=ids.device)}


def _replace_rope(config: Any, rope: Mapping[str, Any]) -> None:
    """Change how positions are told, in place; raise ConfigError where Transformers could not compute it."""
    parameters = {**(getattr(config, "rope_parameters", None) or {}), **rope}
    kind = parameters.get("rope_type", "default")
    try:
        config.rope_parameters = parameters
        if kind != "default":
            frequencies, _ = ROPE_INIT_FUNCTIONS[kind](config, device="cpu")
            if not bool(frequencies.isfinite().all()):
                raise ValueError("its frequencies would not be finite")
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ConfigError(
            f"model.language_model.rope={dict(rope)} cannot be used: {type(error).__name__}: {error}; types "
            f"are {', '.join(sorted(ROPE_INIT_FUNCTIONS))}, and each wants entries of its own, see theirs"
        ) from error
