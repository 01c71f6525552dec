"""Asking in a session: the answers are those of asking each question alone, and the video is watched once."""

from __future__ import annotations

import dataclasses
import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import vilamp
from vilamp.data.needle_scene import Needle, draw_needle, new_haystack
from vilamp.errors import ConfigError, DataError
from vilamp.samples import Batch, Question, Video
from vilamp.session import LoadedModel, Session
from vilamp.testing.barcodes import write_video

QUESTIONS = ["what colour is the circle?", "where is the circle?", "what shape is red?"]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return vilamp.load(num_keyframes=2, device="cpu")


@pytest.fixture(scope="module")
def video() -> Video:
    scene = new_haystack(np.random.default_rng(0))
    frames = np.stack([scene.frame(float(i)) for i in range(70)])  # two chunks
    frames[40] = draw_needle(frames[40], Needle("circle", "red", "centre"))
    return Video("v", torch.from_numpy(frames), torch.arange(70, dtype=torch.float64))


@pytest.fixture(scope="module")
def session(loaded: LoadedModel, video: Video) -> Session:
    return Session(loaded, video)


def test_the_needle_is_found_and_told(session: Session) -> None:
    answer = session.ask("  what colour is\nthe circle? ")
    assert answer.text == "red"
    assert 40.0 in answer.keyframes and len(answer.keyframes) <= 2
    assert answer.question.source.question == QUESTIONS[0]
    assert answer.relevance is not None and np.argmax(answer.relevance) == 40
    assert 0.5 < answer.confidence <= 1


@pytest.mark.parametrize("room", [None, 0])
def test_answers_are_those_of_each_question_alone(
    loaded: LoadedModel, session: Session, video: Video, room: int | None
) -> None:
    """To the bit: on kept features, and where none are kept."""
    if room is not None:
        session = Session(dataclasses.replace(loaded, features_room=room), video)
    model, encode = loaded.model, loaded.encode
    for text in [*QUESTIONS, QUESTIONS[0]]:
        answer = session.ask(text)
        question = answer.question
        batch = Batch([video], [question], [0])
        with torch.no_grad():
            (visual,), (selection,) = model.see(batch)
            (kept,), _ = model.see(batch, session.features)
        assert visual is not None and kept is not None and selection is not None
        assert torch.equal(visual, kept)
        assert torch.equal(selection.keyframes, answer.selection.keyframes)
        assert torch.equal(selection.relevance, answer.selection.relevance)
        assert answer.visual_tokens == len(visual)
        (ids,) = model.generate(batch, loaded.max_new_tokens, encode.tokenizer.eos_token_id)
        assert answer.text == encode.decode(ids).strip()


def test_confidence_is_the_probability_of_the_answer(loaded: LoadedModel, session: Session, video: Video) -> None:
    """The cross entropy of the answer and its end, under teacher forcing, says the same."""
    answer = session.ask(QUESTIONS[0])
    forced = loaded.encode(Question(QUESTIONS[0], answer.text, QUESTIONS[0]), "k", True, answer.question.seed)
    with torch.no_grad():
        loss = loaded.model(Batch([video], [forced], [0])).loss
    assert answer.confidence == pytest.approx(float(torch.exp(-loss * (forced.labels >= 0).sum())), rel=1e-3)


def test_a_further_question_asks_neither_tower_nor_scorer_for_frames(
    loaded: LoadedModel, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the video is watched again")

    monkeypatch.setattr(loaded.model.vision_tower, "forward", refuse)
    monkeypatch.setattr(loaded.model.scorer, "embed_frames", refuse)
    assert session.ask(QUESTIONS[0]).text == "red"


def test_what_finds_no_room_is_told_once(loaded: LoadedModel, video: Video, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vilamp.session"):
        session = Session(dataclasses.replace(loaded, features_room=2**20), video)
        session.ask(QUESTIONS[0])
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "what the vision tower says of 64 of the 70 frames is kept"
    ]


@pytest.mark.parametrize("question", ["", "  \n", "<video>"])
def test_what_cannot_be_asked_is_an_error(session: Session, question: str) -> None:
    with pytest.raises(DataError, match="question is empty" if question.strip() == "" else "holds <video>"):
        session.ask(question)


def test_a_long_question_is_searched_for_as_far_as_the_scorer_reads(session: Session) -> None:
    answer = session.ask("what colour is the circle and " + "where is the star and " * 9)
    source = answer.question.source
    assert source.question.startswith(source.query) and len(source.query) < len(source.question)


def test_a_question_beyond_the_context_is_an_error(loaded: LoadedModel, video: Video) -> None:
    encode = loaded.encode
    before, encode.max_text_tokens = encode.max_text_tokens, 40
    try:
        with pytest.raises(DataError, match=r"the question cannot be asked: .* have .* tokens"):
            Session(loaded, video).ask("what colour is the circle " * 9)
    finally:
        encode.max_text_tokens = before


def test_progress_reaches_the_end(loaded: LoadedModel, video: Video, tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(write_video(list(range(6)), Fraction(1)))
    told: list[tuple[str, int, int]] = []
    session = loaded.open(file, lambda *step: told.append(step))
    assert told[0] == ("reading", 0, 0) and told[-1] == ("looking closely", 6, 6)
    assert len(session.video) == 6 and session.ask("where is the star?").visual_tokens > 0


def test_a_file_that_is_no_video_is_an_error(loaded: LoadedModel, tmp_path: Path) -> None:
    file = tmp_path / "text.mp4"
    file.write_text("no video")
    with pytest.raises(DataError, match=r"text\.mp4: .*decoder=NAME"):
        loaded.open(file)
    with pytest.raises(DataError, match="there is no video"):
        loaded.open(tmp_path / "nowhere.mp4")


def test_a_timeline_is_drawn_without_a_verdict(session: Session) -> None:
    title = session.timeline(session.ask(QUESTIONS[0])).get_suptitle()
    assert "red" in title and "right" not in title and "wrong" not in title


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features_gib": -1}, "features_gib"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"device": "tpu"}, "device must be"),
        ({"selector": "nearest"}, "there is no selector=nearest"),
        ({"checkpoint": "nowhere.ckpt"}, r"checkpoint=nowhere\.ckpt does not exist"),
        ({"max_frames": 40_000}, "data.max_frames=40000"),
        ({"num_keyframes": 1.5}, "num_keyframes must be a whole number"),
    ],
)
def test_a_setting_that_cannot_be_is_an_error(settings: dict[str, object], message: str) -> None:
    checkpoint = settings.pop("checkpoint", None)
    with pytest.raises(ConfigError, match=message):
        vilamp.load(checkpoint, **settings)  # type: ignore[arg-type]


def test_settings_reach_their_parts() -> None:
    loaded = vilamp.load(selector="uniform", merger="none", num_keyframes=3, fps=2.5, max_frames=20, seed=5)
    assert type(loaded.model.selector).__name__ == "UniformSelector" and loaded.model.num_keyframes == 3
    assert type(loaded.model.merger).__name__ == "NoneMerger"
    assert (loaded.reader.settings.fps, loaded.reader.settings.max_frames, loaded.seed) == (2.5, 20, 5)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert "tiny model" in loaded.remark


def test_bfloat16_answers_too(video: Video) -> None:
    session = Session(vilamp.load(device="cpu", **{"model": "tiny", "model.dtype": "bfloat16"}), video)
    assert session.ask(QUESTIONS[0]).text == "red"


def test_a_random_selector_answers_alike_in_any_order(video: Video) -> None:
    loaded = vilamp.load(selector="random", merger="random", device="cpu")
    one, other = Session(loaded, video), Session(loaded, video)
    first = [one.ask(text).keyframes for text in QUESTIONS]
    second = [other.ask(text).keyframes for text in reversed(QUESTIONS)]
    assert first == second[::-1] and first[0] != first[1]
