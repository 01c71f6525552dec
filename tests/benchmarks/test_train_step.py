"""The benchmark of a training step: both ways are the same computation, to the gradients."""

from __future__ import annotations

import json

import pytest
import torch
import train_step
from small_model import one_question, rolling_video, small_model


def test_both_ways_give_the_same_loss_and_the_same_gradients() -> None:
    model = small_model("num_keyframes=5", "model.chunk_size=7").double()
    batch = one_question(rolling_video(40))
    results = {}
    for way, loss_of in train_step.WAYS.items():
        model.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        results[way] = loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    (loss, gradients), (whole_loss, whole_gradients) = results["ours"], results["whole_video"]
    torch.testing.assert_close(loss, whole_loss, rtol=1e-5, atol=0, check_dtype=False)
    assert gradients.keys() == whole_gradients.keys()
    assert {name.split(".")[0] for name in gradients} == {"merger", "projector", "language_model"}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, whole_gradients[name], rtol=1e-4, atol=1e-5 * gradient.abs().max().item())


def test_the_last_line_has_both_ways(monkeypatch, capsys) -> None:
    def grown(script: str, way: str, size: int) -> float:
        train_step.grow(way, size)  # runs; what it grows by is honest in a process of its own only
        return 100.0

    monkeypatch.setattr(train_step, "extra_mib", grown)
    train_step.main(["--quick", "--json"])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert set(row) == {column.key for column in train_step.COLUMNS}
    assert row["whole_video_over_ours_time"] == pytest.approx(row["whole_video_s"] / row["ours_s"])


def test_another_computation_is_not_compared(monkeypatch) -> None:
    monkeypatch.setitem(train_step.WAYS, "whole_video", lambda model, batch: train_step.ours_loss(model, batch) * 1.01)
    with pytest.raises(ValueError, match="40 frames: the two ways give different losses"):
        train_step.measure(40, 1)
