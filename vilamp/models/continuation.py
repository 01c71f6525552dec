"""Prompts that are read once, and from then on continued: by options that are scored, and by greedy answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from vilamp.models.language_model import LanguageModel


class Continuation:
    """What a language model says after each of B prompts.

    The prompts go through the model once; keys and values of their tokens are kept, and every continuation starts from
    them.  Padding stands on the left, is masked, and takes no position.

    Args:
        language_model: reads and answers.
        sequences: B times float[L, D], of different length.
        positions: B times float[L], where their tokens stand; None: one behind the other.
    """

    @torch.no_grad()
    def __init__(
        self, language_model: LanguageModel, sequences: Sequence[Tensor], positions: Sequence[Tensor] | None = None
    ) -> None:
        self.lm = language_model.lm
        self.embed = language_model.embed
        padded = _pad_left(sequences)  # [B, L, D]
        self.length = padded.shape[1]
        lengths = torch.tensor([len(sequence) for sequence in sequences], device=padded.device)
        self.mask = (torch.arange(self.length, device=padded.device) >= self.length - lengths[:, None]).long()
        if positions is None:
            positions = [torch.arange(len(sequence)) for sequence in sequences]
        places = _pad_left(positions).to(padded.device)  # [B, L]
        self.next_position = places[:, -1:] + 1  # [B, 1]
        self.cache = DynamicCache()
        self.last = self._read(padded, self.mask, places)[:, -1]
        """float[B, vocabulary]: the logits of the token behind each prompt."""

    def _read(self, embeddings: Tensor, mask: Tensor, positions: Tensor, last_only: bool = True) -> Tensor:
        """Logits float[B, t, vocabulary] behind float[B, t, D], or behind its last token alone; the cache grows."""
        hidden = self.lm.model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        logits: Tensor = self.lm.lm_head(hidden[:, -1:] if last_only else hidden).float()
        return logits

    def _go_on(self, ids: Tensor, last_only: bool = True) -> Tensor:
        """The same behind ids int64[B, t], which follow what the cache holds."""
        done = self.cache.get_seq_length() - self.length
        positions = self.next_position + done + torch.arange(ids.shape[1], device=ids.device)
        new = torch.ones(len(ids), done + ids.shape[1], dtype=self.mask.dtype, device=ids.device)
        return self._read(self.embed(ids), torch.cat([self.mask, new], dim=1), positions, last_only)

    def _forget(self) -> None:
        """Cut the cache back to the prompts."""
        done = self.cache.get_seq_length() - self.length
        if done:
            self.cache.crop(-done)

    @torch.no_grad()
    def log_likelihoods(self, options: Sequence[Sequence[Tensor]]) -> list[list[float]]:
        """The logarithm of each option's probability, summed over its tokens.

        Options of one token cost nothing beyond the prompt.  The end of the turn is not part of an option.

        Args:
            options: for each prompt its options, int64[T] each, T >= 1.
        """
        device = self.last.device
        first = self.last.log_softmax(-1)  # [B, vocabulary]
        scores = [[first[row, ids[0]].item() for ids in of_prompt] for row, of_prompt in enumerate(options)]
        slots = max(map(len, options))
        for slot in range(slots):
            rows = [of_prompt[slot] if slot < len(of_prompt) else of_prompt[0][:1] for of_prompt in options]
            longest = max(map(len, rows))
            if longest == 1:
                continue
            ids = pad_sequence([row.to(device) for row in rows], batch_first=True)  # [B, T]
            logits = self._go_on(ids[:, :-1], last_only=False).log_softmax(-1)  # [B, T - 1, vocabulary]
            self._forget()
            each = logits.gather(2, ids[:, 1:, None]).squeeze(2)  # [B, T - 1]
            for row, of_prompt in enumerate(options):
                if slot < len(of_prompt):
                    scores[row][slot] += each[row, : len(rows[row]) - 1].sum().item()
        return scores

    @torch.no_grad()
    def greedy(self, max_new_tokens: int, end: int) -> list[Tensor]:
        """The most likely token after token, int64[up to max_new_tokens] for each prompt, without the end token."""
        ids = self.last.argmax(-1, keepdim=True)  # [B, 1]
        while ids.shape[1] < max_new_tokens and not bool((ids == end).any(1).all()):
            ids = torch.cat([ids, self._go_on(ids[:, -1:])[:, -1].argmax(-1, keepdim=True)], dim=1)
        self._forget()
        ended = (ids == end).cumsum(1) > 0
        return [row[~over] for row, over in zip(ids, ended, strict=True)]


def _pad_left(rows: Sequence[Tensor]) -> Tensor:
    """B times [L, ...], of different length -> [B, longest L, ...], with zeros before the shorter ones."""
    return pad_sequence([row.flip(0) for row in rows], batch_first=True).flip(1)
