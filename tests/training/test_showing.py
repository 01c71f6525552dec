"""What is looked at closely for the report is what the model does."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vilamp.build import build_encoder, build_model
from vilamp.config import compose
from vilamp.data.needle_scene import new_haystack
from vilamp.models.text import PromptEncoder
from vilamp.models.video_lm import VideoLM
from vilamp.samples import Batch, Question, Video
from vilamp.training.showing import EACH, MERGED, show, told_weights

LENGTH = 21


def build(*overrides: str) -> tuple[VideoLM, PromptEncoder]:
    cfg = compose("train", ["num_keyframes=3", "model.chunk_size=4", *overrides])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    return model, build_encoder(cfg, model)


def batch(encode: PromptEncoder, seed: int = 0, answer: str = "nothing like it") -> Batch:
    """Two questions about one video and one about text alone."""
    scene = new_haystack(np.random.default_rng(seed))
    frames = torch.from_numpy(np.stack([scene.frame(float(i)) for i in range(LENGTH)]))
    times = torch.arange(LENGTH, dtype=torch.float64)
    asked = Question("what colour is the ring?", answer, "what colour is the ring?", "colour", ((4.0, 6.0),))
    questions = [encode(asked, f"v{seed}/{i}", i < 2, i) for i in range(3)]
    return Batch([Video(f"v{seed}", frames, times)], questions, [0, 0, -1])


def test_a_sample_is_what_the_model_does() -> None:
    model, encode = build()
    samples = show(model, encode, [batch(encode)])
    (shown,) = samples.samples  # of one video at most one wrong answer
    output = model(batch(encode).only(0))
    assert not shown.exact and shown.right_answer == "nothing like it" and shown.key == "v0/0"
    selection = output.selections[0]
    assert shown.keyframes == selection.keyframes.tolist() and shown.times == list(range(LENGTH))
    assert shown.relevance == pytest.approx(selection.relevance.tolist(), abs=1e-4)
    end = encode.tokenizer.eos_token_id
    assert shown.answer == encode.decode(model.generate(batch(encode).only(0), 32, end)[0])
    merged = [still for still in shown.stills if still.merged]
    assert len(merged) == MERGED and {still.frame for still in shown.stills} >= {4, 5, *shown.keyframes}
    assert all(np.sum(still.weights) == pytest.approx(1, abs=1e-3) for still in merged)
    assert all(still.weights is None for still in shown.stills if not still.merged)
    assert Image.open(io.BytesIO(base64.b64decode(merged[0].jpeg))).format == "JPEG"


def test_weights_stand_at_their_own_frames() -> None:
    """A merger that tells of one patch, another one in every frame, in the order in which it sees them."""
    model, encode = build("merger=uniform")
    calls: list[int] = []

    def one_after_the_other(patches: Tensor, *others: Tensor, generator: torch.Generator | None = None) -> Tensor:
        numbers = torch.arange(len(patches)) + sum(calls)
        calls.append(len(patches))
        return torch.nn.functional.one_hot(numbers, patches.shape[1]).float()[:, None]

    model.merger.token_weights = one_after_the_other  # type: ignore[method-assign,assignment]
    (shown,) = show(model, encode, [batch(encode)]).samples
    order = [i for i in range(LENGTH) if i not in shown.keyframes]
    for still in shown.stills:
        if still.merged:
            assert np.flatnonzero(np.array(still.weights)).tolist() == [order.index(still.frame)]


def test_weights_of_a_merger_that_draws_are_those_of_its_tokens() -> None:
    model, encode = build("merger=random")
    seen: list[tuple[Tensor, Tensor]] = []

    def see(merger: torch.nn.Module, inputs: tuple[Tensor, ...], tokens: Tensor) -> None:
        seen.append((inputs[0], tokens))

    model.merger.register_forward_hook(see)
    with torch.no_grad(), told_weights(model.merger) as told:
        model(batch(encode).only(0))
    assert len(seen) > 1
    for weights, (patches, tokens) in zip(told, seen, strict=True):
        torch.testing.assert_close(weights @ patches, tokens)


def test_nothing_is_asked_of_a_merger_outside() -> None:
    model, encode = build()

    def never(*inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raise AssertionError("asked")

    with told_weights(model.merger):
        pass
    model.merger.token_weights = never  # type: ignore[method-assign,assignment]
    assert model(batch(encode)).visual_tokens


@pytest.mark.parametrize("merger", ["none", "tome"])
def test_a_merger_that_does_not_tell_is_shown_without(merger: str) -> None:
    model, encode = build(f"merger={merger}")
    (shown,) = show(model, encode, [batch(encode)]).samples
    assert any(still.merged for still in shown.stills) and all(still.weights is None for still in shown.stills)


def test_the_search_ends_when_enough_was_found() -> None:
    model, encode = build()
    right = encode.decode(model.generate(batch(encode).only(0), 32, encode.tokenizer.eos_token_id)[0])
    asked: list[int] = []

    def batches():
        for seed in range(20):
            asked.append(seed)
            yield batch(encode, 0, right if seed % 2 else "nothing like it")

    samples = show(model, encode, batches())
    assert [one.exact for one in samples.samples] == [False, True] * EACH and len(asked) == 2 * EACH


def test_costs_are_of_parts_of_the_longest_video() -> None:
    model, encode = build()
    costs = show(model, encode, [batch(encode)]).costs
    assert [cost.frames for cost in costs] == [LENGTH // 4, LENGTH // 2, LENGTH]
    assert all(cost.seconds > 0 and cost.peak_gib > 0 and not cost.on_gpu for cost in costs)


def test_without_a_video_there_is_nothing_to_show() -> None:
    model, encode = build()
    shown = show(model, encode, [batch(encode).only(2), Batch([], [], [])])
    assert not shown.samples and not shown.costs
