"""Questions and answers as text -> token ids for the scorer and the language model."""

from __future__ import annotations

import torch
from transformers import AutoTokenizer

from vilamp.errors import ConfigError
from vilamp.models.pretrained import reading
from vilamp.samples import IGNORED, VIDEO_TOKEN, EncodedQuestion, Question, SkipSample

PLACEHOLDER = "<video>"
"""Where the video goes in a rendered chat; never seen by a tokenizer."""


class PromptEncoder:
    """Renders the chat template, tokenises, and checks what must fit where.

    Args:
        scorer_path: hub id or folder of the scorer's tokenizer.
        language_model_path: hub id or folder of the language model's tokenizer, which must have a chat template.
        max_query_tokens: the scorer's text context.
        max_text_tokens: what the language model's context leaves for the text beside the longest possible video.

    Raises:
        ConfigError: the language model's tokenizer has no chat template.
    """

    def __init__(self, scorer_path: str, language_model_path: str, max_query_tokens: int, max_text_tokens: int) -> None:
        with reading(scorer_path, "model.scorer.path"):
            self.scorer_tokenizer = AutoTokenizer.from_pretrained(scorer_path)
        with reading(language_model_path, "model.language_model.path"):
            self.tokenizer = AutoTokenizer.from_pretrained(language_model_path)
        self.max_query_tokens = max_query_tokens
        self.max_text_tokens = max_text_tokens
        if not self.tokenizer.chat_template:
            raise ConfigError(
                f"the tokenizer of {language_model_path} has no chat template; set model.language_model.path"
            )

    def render(self, question: str, has_video: bool, system: str = "", prefill: str = "") -> str:
        """The prompt up to the point where the answer begins, or goes on behind ``prefill``."""
        content = f"{PLACEHOLDER}\n{question}" if has_video else question
        turns = [{"role": "system", "content": system}] if system else []
        turns.append({"role": "user", "content": content})
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) + prefill

    def __call__(self, question: Question, key: str, has_video: bool, seed: int) -> EncodedQuestion:
        """Encode one question (the type is :data:`vilamp.samples.EncodeQuestion`).

        Raises:
            SkipSample: ``too_long``: the query or the text does not fit; ``placeholder``: the question holds the word
                that stands for the video.
        """
        if PLACEHOLDER in question.question:
            raise SkipSample("placeholder", f"the question holds {PLACEHOLDER}, which the prompt adds by itself")
        prompt = self.render(question.question, has_video, question.system, question.prefill)
        before, _, after = prompt.rpartition(PLACEHOLDER) if has_video else ("", "", prompt)
        prompt_ids = [*self._ids(before), VIDEO_TOKEN, *self._ids(after)] if has_video else self._ids(after)
        answer_ids = [*self._ids(question.answer), self.tokenizer.eos_token_id]
        length = len(prompt_ids) + len(answer_ids)
        if length > self.max_text_tokens:
            raise SkipSample(
                "too_long",
                f"question and answer have {length} tokens, the language model's context leaves {self.max_text_tokens} "
                "beside the video; shorten them, or lower data.max_frames or num_keyframes",
            )
        query_ids = self.scorer_tokenizer(question.query).input_ids if has_video else []
        if len(query_ids) > self.max_query_tokens:
            raise SkipSample(
                "too_long",
                f"the query has {len(query_ids)} tokens, the scorer reads {self.max_query_tokens}; give the question a "
                'short "query" of what to look for',
            )
        return EncodedQuestion(
            key=key,
            source=question,
            query_ids=torch.tensor(query_ids, dtype=torch.int64),
            input_ids=torch.tensor(prompt_ids + answer_ids),
            labels=torch.tensor([IGNORED] * len(prompt_ids) + answer_ids),
            seed=seed,
        )

    def fit_query(self, query: str) -> str:
        """As much of a query as the scorer reads, cut behind a word; a single word stays whole."""
        words = query.split()
        if len(words) > self.max_query_tokens:  # each is a token at least
            words = words[: self.max_query_tokens]
            query = " ".join(words)
        while len(words) > 1 and len(self.scorer_tokenizer(query).input_ids) > self.max_query_tokens:
            words.pop()
            query = " ".join(words)
        return query

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def decode(self, ids: torch.Tensor) -> str:
        """int64[T] -> text, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)
