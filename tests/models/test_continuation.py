"""Prompts read once and continued, against the plain way: each whole sequence through the model by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vilamp.locations import asset
from vilamp.models.continuation import Continuation
from vilamp.models.language_model import LanguageModel

END = 2


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """The tiny one."""
    return LanguageModel(str(asset("tiny/language_model"))).eval()


@pytest.fixture(scope="module")
def prompts(model: LanguageModel) -> list[Tensor]:
    """Three of different length."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return [model.embed(torch.randint(20, 400, (length,), generator=generator)) for length in (7, 19, 12)]


def _plainly(model: LanguageModel, prompt: Tensor, option: Tensor) -> float:
    """The log likelihood of an option from one pass over all of it."""
    with torch.no_grad():
        sequence = torch.cat([prompt, model.embed(option)])
        logits = model.lm(inputs_embeds=sequence[None]).logits[0].float().log_softmax(-1)
    rows = logits[len(prompt) - 1 : len(prompt) - 1 + len(option)]
    return rows.gather(1, option[:, None]).sum().item()


def test_greedy_answers_are_those_of_each_prompt_alone(model: LanguageModel, prompts: list[Tensor]) -> None:
    together = Continuation(model, prompts).greedy(12, END)
    for prompt, answer in zip(prompts, together, strict=True):
        assert answer.tolist() == model.generate(prompt, 12, END).tolist()


def test_an_answer_ends_at_the_end_token_and_the_others_go_on(model: LanguageModel, prompts: list[Tensor]) -> None:
    free = Continuation(model, prompts).greedy(8, 413)
    end = free[0][2].item()  # a token that ends some earlier than others
    cut = Continuation(model, prompts).greedy(8, end)
    for all_of_it, answer in zip(free, cut, strict=True):
        ids = all_of_it.tolist()
        assert answer.tolist() == (ids[: ids.index(end)] if end in ids else ids)
    assert len({len(answer) for answer in cut}) > 1


@pytest.mark.parametrize("lengths", [[[1, 1], [1, 1, 1], [1]], [[1, 3], [2, 4, 1], [5]]], ids=["letters", "texts"])
def test_options_have_the_likelihood_of_the_whole_sequence(
    model: LanguageModel, prompts: list[Tensor], lengths: list[list[int]]
) -> None:
    generator = torch.Generator().manual_seed(1)
    options = [[torch.randint(20, 400, (n,), generator=generator) for n in of_one] for of_one in lengths]
    continuation = Continuation(model, prompts)
    scores = continuation.log_likelihoods(options)
    for prompt, of_prompt, found in zip(prompts, options, scores, strict=True):
        expected = [_plainly(model, prompt, option) for option in of_prompt]
        assert found == pytest.approx(expected, abs=1e-4)
    assert continuation.log_likelihoods(options) == scores, "the cache is as before"
    after = continuation.greedy(6, END)
    assert [ids.tolist() for ids in after] == [ids.tolist() for ids in Continuation(model, prompts).greedy(6, END)]


def test_single_letters_cost_no_further_pass(model: LanguageModel, prompts: list[Tensor]) -> None:
    continuation = Continuation(model, prompts)
    continuation.lm = None  # nothing is left to ask
    scores = continuation.log_likelihoods([[torch.tensor([36]), torch.tensor([37])]] * 3)
    assert all(score < 0 for of_prompt in scores for score in of_prompt)
