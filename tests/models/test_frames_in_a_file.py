"""The model reads frames from a file as from memory: the same loss, gradients, answers and costs, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vilamp
from vilamp.build import build_encoder, build_model, build_optim
from vilamp.config import compose
from vilamp.data.needle_scene import new_haystack
from vilamp.frame_file import FrameFile
from vilamp.samples import Batch, Question, Video
from vilamp.session import Session
from vilamp.training.showing import show

COUNT = 70
"""More than a chunk."""


@pytest.fixture(scope="module")
def in_memory() -> Video:
    scene = new_haystack(np.random.default_rng(0))
    frames = np.stack([scene.frame(float(i)) for i in range(COUNT)])
    return Video("v", torch.from_numpy(frames), torch.arange(COUNT, dtype=torch.float64))


@pytest.fixture
def in_file(in_memory: Video, tmp_path: Path) -> Video:
    frames = FrameFile.make(tmp_path, COUNT, in_memory.frames.shape[1])
    frames[0:COUNT] = in_memory.frames[:].numpy()
    return replace(in_memory, frames=frames)


def test_a_training_step_is_the_same(in_memory: Video, in_file: Video) -> None:
    """Two videos, of which the tower trains, so that chunks are read once more in the backward pass."""
    cfg = compose("train", ["optim.lr.vision_tower=1e-5", "num_keyframes=2"])
    torch.manual_seed(0)
    model = build_model(cfg)
    build_optim(cfg).freeze(model)
    encode = build_encoder(cfg, model)
    question = encode(Question("where is it?", "left", "where"), "v/0", True, 0)
    losses, gradients = [], []
    for videos in ([in_memory, in_memory], [in_file, in_file]):
        model.zero_grad()
        output = model(Batch(videos, [question, question], [0, 1]))
        output.loss.backward()
        losses.append(output.loss.item())
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert losses[0] == losses[1]
    assert len(gradients[0]) > 10 and all(map(torch.equal, *gradients))


def test_a_session_and_its_pictures_are_the_same(in_memory: Video, in_file: Video) -> None:
    loaded = vilamp.load(num_keyframes=2, device="cpu")
    answers = []
    for video in (in_memory, in_file):
        session = Session(loaded, video)
        answer = session.ask("what colour is the circle?")
        answers.append((answer.text, answer.confidence, answer.keyframes, answer.relevance))
        assert session.timeline(answer).axes
    assert answers[0] == answers[1]


def test_the_report_looks_at_them_too(in_memory: Video, in_file: Video) -> None:
    loaded = vilamp.load(num_keyframes=2, device="cpu")
    question = loaded.encode(Question("where is it?", "left", "where"), "v/0", True, 0)
    seen = [show(loaded.model, loaded.encode, [Batch([v], [question], [0])]) for v in (in_memory, in_file)]
    assert seen[0].samples == seen[1].samples
    assert [cost.frames for cost in seen[1].costs] == [17, 35, 70]
