"""Where tokens stand in the language model when merged frames take less than a position each."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import vilamp
from vilamp.benchmark import Item
from vilamp.benchmarks.needle import Needle
from vilamp.build import build_model
from vilamp.config import compose
from vilamp.errors import ConfigError
from vilamp.evaluation.asking import Asker
from vilamp.interfaces import Selection
from vilamp.locations import asset
from vilamp.models.continuation import Continuation
from vilamp.models.language_model import LanguageModel
from vilamp.models.video_lm import VideoLM
from vilamp.models.visual_stream import interleave, token_steps
from vilamp.samples import IGNORED, VIDEO_TOKEN, Batch, Question, Video
from vilamp.session import Session

END = 2
IDS = torch.tensor([5, 6, VIDEO_TOKEN, 7, 8, 9])
"""A prompt with a video."""


@pytest.fixture(scope="module")
def language_model() -> LanguageModel:
    return LanguageModel(str(asset("tiny/language_model"))).eval()


@pytest.fixture(scope="module")
def sequences(language_model: LanguageModel) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return [language_model.embed(torch.randint(20, 400, (length,), generator=generator)) for length in (30, 9, 17)]


@pytest.fixture(scope="module")
def positions(sequences: list[Tensor]) -> list[Tensor]:
    """Steps of a quarter, then of one."""
    steps = [torch.where(torch.arange(len(rows)) < len(rows) - 4, 0.25, 1.0) for rows in sequences]
    return [row.cumsum(0) - row[0] for row in steps]


def build(*overrides: str) -> VideoLM:
    return build_model(compose("train", ["num_keyframes=2", *overrides])).eval()


@pytest.mark.parametrize("per_merged", [0, 1, 3])
def test_every_token_has_the_step_of_its_frame(per_merged: int) -> None:
    keyframes = torch.tensor([1, 4])
    whole, merged = torch.ones(2, 4, 1), torch.full((4, per_merged, 1), 0.125)
    steps = token_steps(keyframes, 6, 4, per_merged, 0.125)
    assert torch.equal(steps, interleave(whole, merged, keyframes, 6)[:, 0])


def test_text_and_keyframes_take_whole_positions_and_merged_frames_a_share() -> None:
    model = build("model.merged_step=0.5", "model.projector.keyframe_grid=2")
    visual = torch.zeros(4 + 1 + 1 + 4 + 1, 96)  # keyframes 0 and 3 of five frames
    joined = model.join(IDS, IDS, visual, Selection(torch.tensor([0, 3])))
    assert joined.positions is not None
    assert joined.positions.tolist() == [0, 1, 2, 3, 4, 5, 5.5, 6, 7, 8, 9, 10, 10.5, 11.5, 12.5, 13.5]


def test_the_embedding_behind_a_video_takes_a_whole_position() -> None:
    model = build(
        "model.merged_step=0.5", "variant=release", "variant.keyframe_grid=2", "model.projector.keyframe_grid=2"
    )
    assert model.projector.tokens_per_video == 1
    joined = model.join(IDS, IDS, torch.zeros(4 + 2 + 1, 96), Selection(torch.tensor([2])))
    assert joined.positions is not None
    assert joined.positions.diff().tolist() == [1, 0.5, 0.5, 1, 1, 1, 1, 1, 1, 1, 1]


def test_frames_that_are_dropped_leave_no_gap() -> None:
    model = build("model.merged_step=0.5", "merger=none", "model.projector.keyframe_grid=2")
    joined = model.join(IDS, IDS, torch.zeros(8, 96), Selection(torch.tensor([3, 9])))
    assert joined.positions is not None
    assert joined.positions.tolist() == list(range(13))


def test_text_alone_is_read_as_ever() -> None:
    joined = build("model.merged_step=0.5").join(IDS[3:], IDS[3:], None, None)
    assert joined.positions is not None
    assert joined.positions.tolist() == [0, 1, 2]


def test_a_step_of_one_says_nothing_of_positions() -> None:
    model = build("model.projector.keyframe_grid=2")
    assert model.join(IDS, IDS, torch.zeros(9, 96), Selection(torch.tensor([0, 3]))).positions is None


@pytest.mark.parametrize("step", ["0", "-0.5", "1.5", "nan", "inf", "half", "null", "true", "[0.5]"])
def test_a_step_that_is_none_is_refused(step: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.merged_step must be above 0 and at most 1, got"):
        build(f"model.merged_step={step}")


def test_whole_steps_change_nothing(language_model: LanguageModel, sequences: list[Tensor]) -> None:
    labels = [torch.full((len(rows),), IGNORED) for rows in sequences]
    for row in labels:
        row[-3:] = torch.tensor([30, 31, END])
    ordinary = [torch.arange(len(rows), dtype=torch.float32) for rows in sequences]
    with torch.no_grad():
        without = language_model.answer_loss(sequences, labels).total
        assert language_model.answer_loss(sequences, labels, ordinary).total.item() == pytest.approx(without.item())


def _loss(model: LanguageModel, rows: Tensor, places: Tensor) -> float:
    """Of the last three tokens being 30, 31 and the end, with no mask but the causal one, written out."""
    hidden, length = rows[None], len(rows)
    mask = torch.full((length, length), -math.inf).triu(1)[None, None]
    rotary = model.lm.model.rotary_emb(hidden, places[None])
    for layer in model.lm.model.layers:
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
    logits = model.lm.lm_head(model.lm.model.norm(hidden))[0, -4:-1].log_softmax(-1)
    return -logits.gather(1, torch.tensor([[30], [31], [END]])).sum().item()


def test_a_loss_is_that_of_one_sequence_whatever_its_steps(
    language_model: LanguageModel, sequences: list[Tensor], positions: list[Tensor]
) -> None:
    """Transformers would take each step that is not 1 for a new sequence, and attend to nothing before it."""
    labels = [torch.full((len(rows),), IGNORED) for rows in sequences]
    for row in labels:
        row[-3:] = torch.tensor([30, 31, END])
    with torch.no_grad():
        expected = sum(map(_loss, [language_model] * 3, sequences, positions))
        found = language_model.answer_loss(sequences, labels, positions).total.item()
        plain = language_model.answer_loss(sequences, labels).total.item()
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(plain, rel=1e-3)


def test_answers_go_on_behind_the_last_position(
    language_model: LanguageModel, sequences: list[Tensor], positions: list[Tensor]
) -> None:
    together = Continuation(language_model, sequences, positions).greedy(8, END)
    for rows, places, answer in zip(sequences, positions, together, strict=True):
        ids: list[int] = []
        while len(ids) < 8:
            more = torch.cat([places, places[-1] + 1 + torch.arange(len(ids))])
            with torch.no_grad():
                read = torch.cat([rows, language_model.embed(torch.tensor(ids, dtype=torch.int64))])
                mask = torch.ones(1, len(read), dtype=torch.int64)
                logits = language_model.lm(
                    inputs_embeds=read[None], position_ids=more[None], attention_mask=mask
                ).logits
            ids.append(int(logits[0, -1].argmax()))
            if ids[-1] == END:
                ids.pop()
                break
        assert answer.tolist() == ids
        assert language_model.generate(rows, 8, END, places).tolist() == ids


def test_options_are_scored_behind_the_last_position(
    language_model: LanguageModel, sequences: list[Tensor], positions: list[Tensor]
) -> None:
    options = [[torch.tensor([40, 41]), torch.tensor([42, 43, 44])]] * 3
    together = Continuation(language_model, sequences, positions).log_likelihoods(options)
    for i, scores in enumerate(together):
        alone = Continuation(language_model, sequences[i : i + 1], positions[i : i + 1])
        assert scores == pytest.approx(alone.log_likelihoods(options[:1])[0], abs=1e-4)
    assert together[0] != pytest.approx(Continuation(language_model, sequences).log_likelihoods(options)[0], abs=1e-3)


@pytest.mark.parametrize("way", ["loss", "generate", "session", "evaluation"])
def test_every_way_to_ask_hands_the_positions_over(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = vilamp.load(num_keyframes=2, device="cpu")
    model, encode = loaded.model, loaded.encode
    frames = torch.randint(0, 256, (9, 96, 96, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    video = Video("v", frames, torch.arange(9, dtype=torch.float64))
    text = "what colour is the circle?"
    batch = Batch([video], [encode(Question(text, "red", text), "k", True, 0)], [0])
    seen: list[Tensor] = []
    forward = model.language_model.lm.model.forward

    def spy(**given: Any) -> Any:
        seen.append(given["position_ids"])
        return forward(**given)

    monkeypatch.setattr(model, "merged_step", 0.25)
    monkeypatch.setattr(model.language_model.lm.model, "forward", spy)
    with torch.no_grad():
        if way == "loss":
            model(batch)
        elif way == "generate":
            model.generate(batch, 2, END)
        elif way == "session":
            Session(loaded, video).ask(text)
        else:
            Asker(model, encode, Needle(), "generation", 0, 4)([Item("k", None, text, answer="red")], video)
        (visual,), (selection,) = model.see(batch)
    (question,) = batch.questions
    ids = question.input_ids if way == "loss" else question.input_ids[question.labels == IGNORED]
    expected = model.join(ids, ids, visual, selection).positions
    assert expected is not None and not torch.equal(expected, torch.arange(len(expected)))
    assert torch.equal(seen[0][0].float(), expected)


def test_a_video_without_its_selection_is_refused() -> None:
    with pytest.raises(ValueError, match="come together"):
        build("model.merged_step=0.5").join(IDS, IDS, torch.zeros(9, 96), None)
