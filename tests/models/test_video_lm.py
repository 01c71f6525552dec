"""The whole model on the tiny parts: batches, text alone, several questions, contexts, and exact match."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vilamp.build import build_encoder, build_model
from vilamp.config import compose
from vilamp.data.needle_scene import Needle, draw_needle, new_haystack
from vilamp.errors import ConfigError
from vilamp.interfaces import Selection
from vilamp.models.text import PromptEncoder
from vilamp.models.video_lm import VideoLM
from vilamp.samples import IGNORED, VIDEO_TOKEN, Batch, EncodedQuestion, Question, SkipSample, Video

SMALL = ["num_keyframes=3", "model.chunk_size=4", "logger=csv"]


def build(*overrides: str) -> tuple[VideoLM, PromptEncoder]:
    cfg = compose("train", [*SMALL, *overrides])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    return model, build_encoder(cfg, model)


@pytest.fixture(scope="module", params=["1.0", "0.25"], ids="step={}".format)
def tiny(request: pytest.FixtureRequest) -> tuple[VideoLM, PromptEncoder]:
    return build(f"model.merged_step={request.param}")


def video(length: int, needle: Needle | None = None, at: int = 0, seed: int = 0) -> Video:
    rng = np.random.default_rng(seed)
    scene = new_haystack(rng)
    frames = [scene.frame(float(i)) for i in range(length)]
    if needle is not None:
        frames[at] = draw_needle(frames[at], needle)
    return Video(f"v{seed}", torch.from_numpy(np.stack(frames)), torch.arange(length, dtype=torch.float64))


def ask(encode: PromptEncoder, question: str, answer: str = "red", has_video: bool = True) -> EncodedQuestion:
    return encode(Question(question, answer, question, "colour"), "k/0", has_video, 3)


def test_a_batch_says_what_its_questions_say_alone(tiny: tuple[VideoLM, PromptEncoder]) -> None:
    """Videos of different length, two questions about one video and a text-only one, together and one by one."""
    model, encode = tiny
    questions = [
        ask(encode, "what colour is the circle?"),
        ask(encode, "what shape is red?", "circle"),
        ask(encode, "where is the star?", "left"),
        ask(encode, "what is this?", "a text", has_video=False),
    ]
    batch = Batch([video(11), video(5, seed=1), video(1, seed=2)], questions, [1, 0, 1, -1])
    together = model(batch)
    alone = [model(batch.only(i)) for i in range(4)]
    assert together.visual_tokens == [single.visual_tokens[0] for single in alone]
    assert together.visual_tokens[3] == 0 and together.selections[3] is None
    total = sum(single.loss * single.answer_tokens for single in alone)
    torch.testing.assert_close(together.loss, total / together.answer_tokens, rtol=1e-4, atol=1e-5)
    assert together.exact.tolist() == [bool(single.exact[0]) for single in alone]
    for one, single in zip(together.selections, alone, strict=True):
        if one is not None:
            assert one.keyframes.tolist() == single.selections[0].keyframes.tolist()


def test_a_batch_without_questions_is_a_zero_loss(tiny: tuple[VideoLM, PromptEncoder]) -> None:
    output = tiny[0](Batch([video(3)], [], []))
    assert output.loss.item() == 0 and output.answer_tokens == 0 and output.exact.shape == (0,)


def test_exact_match_is_what_greedy_decoding_says(tiny: tuple[VideoLM, PromptEncoder]) -> None:
    model, encode = tiny
    end = encode.tokenizer.eos_token_id
    shown = video(6, Needle("circle", "red", "centre"), 2)
    verdicts = []
    for text in ("what colour is the circle?", "where is the circle?", "what shape is red?"):
        batch = Batch([shown], [ask(encode, text, "?")], [0])
        said = encode.decode(model.generate(batch, 8, end)[0])
        right = model(Batch([shown], [ask(encode, text, said)], [0])).exact
        wrong = model(Batch([shown], [ask(encode, text, said + " thing")], [0])).exact
        verdicts.append((bool(right[0]), bool(wrong[0])))
    assert verdicts == [(True, False)] * 3


def test_generation_does_not_see_the_answer(tiny: tuple[VideoLM, PromptEncoder]) -> None:
    model, encode = tiny
    end = encode.tokenizer.eos_token_id
    shown = video(4, Needle("star", "blue", "left"), 1)
    said = [
        model.generate(Batch([shown], [ask(encode, "what colour is the star?", answer)], [0]), 6, end)[0].tolist()
        for answer in ("blue", "something else altogether")
    ]
    assert said[0] == said[1]


def test_generation_computes_one_position_of_logits_and_reads_the_past_from_its_cache(
    tiny: tuple[VideoLM, PromptEncoder],
) -> None:
    model, encode = tiny
    lm = model.language_model.lm
    heads: list[list[int]] = []
    layers: list[list[int]] = []
    hooks = [
        lm.lm_head.register_forward_pre_hook(lambda _, given: heads.append(list(given[0].shape))),
        lm.model.layers[0].register_forward_pre_hook(lambda _, given: layers.append(list(given[0].shape))),
    ]
    batch = Batch([video(6)], [ask(encode, "what colour is the star?")], [0])
    try:
        model.generate(batch, 4, -1)  # no token ends it
    finally:
        for hook in hooks:
            hook.remove()
    length = model.max_visual_tokens(6) + int((batch.questions[0].labels == IGNORED).sum()) - 1
    width = model.language_model.dim
    assert heads == [[1, 1, width]] * 4
    assert 1 < layers[0][1] <= length and layers[1:] == [[1, 1, width]] * 3


def test_the_answer_and_its_end_are_the_only_labels(tiny: tuple[VideoLM, PromptEncoder]) -> None:
    _, encode = tiny
    question = ask(encode, "what colour is the moon?", "yellow")
    labelled = question.labels[question.labels != IGNORED]
    assert encode.decode(labelled) == "yellow"
    assert labelled[-1] == encode.tokenizer.eos_token_id
    assert (question.input_ids == VIDEO_TOKEN).sum() == 1
    assert encode.decode(question.input_ids[question.input_ids >= 0]).count("what colour is the moon?") == 1
    alone = ask(encode, "hello", "you", has_video=False)
    assert (alone.input_ids >= 0).all() and alone.query_ids.numel() == 0


@pytest.mark.parametrize(
    ("question", "query", "reason", "message"),
    [
        ("word " * 60, "word " * 60, "too_long", 'the scorer reads 32; give the question a short "query"'),
        ("word " * 40_000, "word", "too_long", "beside the video; shorten them, or lower data.max_frames"),
        ("what is <video>?", "what", "placeholder", "<video>"),
    ],
)
def test_what_does_not_fit_is_a_skip_with_a_reason(
    tiny: tuple[VideoLM, PromptEncoder], question: str, query: str, reason: str, message: str
) -> None:
    with pytest.raises(SkipSample, match=message) as caught:
        tiny[1](Question(question, "a", query), "k/0", True, 0)
    assert caught.value.reason == reason


def test_a_short_query_lets_a_long_question_through(tiny: tuple[VideoLM, PromptEncoder]) -> None:
    encoded = tiny[1](Question("word " * 60, "a", "word"), "k/0", True, 0)
    assert len(encoded.query_ids) <= 32


def test_a_query_is_cut_behind_a_word_however_long_it_is(
    tiny: tuple[VideoLM, PromptEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, read = tiny[1], list[int]()
    tokenizer = encode.scorer_tokenizer
    monkeypatch.setattr(encode, "scorer_tokenizer", lambda text: (read.append(len(text)), tokenizer(text))[1])
    kept = encode.fit_query("what  is " * 50_000).split()
    assert len(tokenizer(" ".join(kept)).input_ids) <= encode.max_query_tokens
    assert len(tokenizer(" ".join([*kept, "what"])).input_ids) > encode.max_query_tokens
    assert sum(read) < 100_000, "the tokenizer does not read all of it again for each word"
    assert encode.fit_query("what  is") == "what  is"


def test_videos_longer_than_the_context_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"data\.max_frames=40000 frames can become .* 32768") as caught:
        build("data.max_frames=40000")
    for setting in ("model.projector.keyframe_grid", "variant.keyframe_grid", "num_keyframes", "data.max_frames"):
        assert setting in str(caught.value)
    assert "model.language_model.path with a longer context" in str(caught.value)


def test_a_sequence_over_the_context_is_an_error_and_never_cut(tiny: tuple[VideoLM, PromptEncoder]) -> None:
    model, encode = tiny
    question = ask(encode, "what?")
    with pytest.raises(ConfigError, match=r"does not fit the language model's context of 32768"):
        model.join(question.input_ids, question.labels, torch.zeros(32768, 96), Selection(torch.arange(4)))


@pytest.mark.parametrize("overrides", [("num_keyframes=0",), ("model.chunk_size=0",)])
def test_sizes_below_one_are_refused(overrides: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=overrides[0].split("=")[0].rpartition(".")[2]):
        build(*overrides)


def gradients(model: VideoLM, batch: Batch) -> dict[str, Tensor]:
    model.zero_grad()
    model(batch).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("merger", ["differential", "attention"])
def test_the_chunk_size_changes_neither_loss_nor_gradients(merger: str) -> None:
    batch = None
    results = []
    for chunk_size in (2, 5, 64):
        model, encode = build(f"merger={merger}", f"model.chunk_size={chunk_size}")
        model.double()
        batch = batch or Batch([video(13), video(4, seed=1)], [ask(encode, "what colour is the ring?")] * 2, [0, 1])
        results.append((model(batch).loss, gradients(model, batch)))
    for loss, found in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=1e-6, atol=1e-7)
        assert found.keys() == results[0][1].keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, results[0][1][name], rtol=1e-4, atol=1e-6)
    assert any("merger" in name for name in results[0][1])
