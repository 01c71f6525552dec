"""The benchmark of the visual path: its frames cost nothing, its gradients are there, its figures can be read."""

from __future__ import annotations

import json

import pytest
import torch
import visual_path
from small_model import one_question, rolling_video


def test_the_frames_of_a_long_video_are_views_of_a_few_bytes() -> None:
    frames = rolling_video(10_000).frames
    assert frames.shape == (10_000, 96, 96, 3)
    assert frames.untyped_storage().nbytes() < 100_000
    assert torch.equal(frames[5, :, 1:-1], frames[6, :, :-2]), "the next frame is the picture moved by a pixel"


@pytest.mark.parametrize("mode", visual_path.MODES)
def test_training_reaches_merger_and_projector_and_inference_nothing(mode: str) -> None:
    model = visual_path.model_for(mode)
    tokens = visual_path.walk(model, mode, 70)
    assert tokens.shape == (visual_path.KEYFRAMES * 16 + 70 - visual_path.KEYFRAMES, 96)
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == ({"merger", "projector"} if mode == "training" else set())


def test_the_last_line_has_a_row_for_every_mode_and_length(monkeypatch, capsys) -> None:
    monkeypatch.setattr(visual_path, "extra_mib", lambda script, mode, size: 3.0 if size == 100 else 6.0)
    visual_path.main(["--quick", "--json"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [(row["mode"], row["n"]) for row in rows] == [
        (mode, size) for mode in visual_path.MODES for size in visual_path.QUICK_SIZES
    ]
    for row in rows:
        assert set(row) >= {column.key for column in visual_path.COLUMNS}
        assert row["output_mib"] == pytest.approx(row["tokens"] * 96 * 4 / 2**20)
        assert row["extra_mib"] == (3.0 if row["n"] == 100 else 6.0) - row["output_mib"]
        assert row["extra_over_base"] == pytest.approx(row["extra_mib"] / (3.0 - rows[0]["output_mib"]))
        assert row["frames_over_base"] == row["n"] / 100


def test_a_question_is_about_the_video_and_has_labels() -> None:
    batch = one_question(rolling_video(3))
    assert batch.video_of == [0] and (batch.questions[0].labels >= 0).sum() == 3
