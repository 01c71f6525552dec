"""Which parts train, and how fast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vilamp.errors import ConfigError
from vilamp.training.optim import PartwiseAdamW


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.Linear(3, 3)
        self.writer = nn.Linear(3, 2)


def settings(**changes: object) -> PartwiseAdamW:
    return PartwiseAdamW(
        **({"lr": {"reader": None, "writer": 0.1}, "weight_decay": 0.5, "betas": (0.9, 0.98), "warmup": 0.1} | changes)
    )


def test_a_part_without_a_rate_is_frozen_and_in_no_group() -> None:
    model = TwoParts()
    optim = settings()
    optim.freeze(model)
    assert not any(p.requires_grad for p in model.reader.parameters())
    optimizer, _ = optim.optimizer(model, 10)
    grouped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert grouped == {id(p) for p in model.writer.parameters()}


def test_only_matrices_decay() -> None:
    model = TwoParts()
    optim = settings(lr={"reader": 0.2, "writer": 0.1})
    optim.freeze(model)
    optimizer, _ = optim.optimizer(model, 10)
    found = {(group["name"], group["params"][0].dim(), group["weight_decay"]) for group in optimizer.param_groups}
    assert found == {("reader", 2, 0.5), ("reader", 1, 0.0), ("writer", 2, 0.5), ("writer", 1, 0.0)}


def test_the_rate_rises_then_falls_to_zero_for_every_part_alike() -> None:
    model = TwoParts()
    optim = settings(lr={"reader": 0.2, "writer": 0.1}, warmup=0.2)
    optim.freeze(model)
    optimizer, schedule = optim.optimizer(model, 100)
    rates = []
    for _ in range(100):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert rates[0] == [0.0] * 4
    assert rates[20] == [0.2, 0.2, 0.1, 0.1]
    assert max(max(row) for row in rates) == 0.2
    assert rates[-1][0] < 0.001
    torch.testing.assert_close(torch.tensor(rates)[:, 0], torch.tensor(rates)[:, 2] * 2)


def test_thawing_works_too() -> None:
    """Loaded frozen (as a scorer is), a part with a rate trains."""
    model = TwoParts().requires_grad_(False)
    settings(lr={"reader": 1e-3, "writer": None}).freeze(model)
    assert all(p.requires_grad for p in model.reader.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": {"reader": 1e-3, "writer": -1.0}}, r"optim\.lr\.writer=-1\.0"),
        ({"warmup": 1.0}, r"optim\.warmup=1\.0"),
        ({"weight_decay": -1.0}, r"optim\.weight_decay must be at least 0 .* got -1\.0"),
        ({"betas": (0.9, 1.0)}, r"optim\.betas two numbers from 0 to below 1, got .*1\.0"),
    ],
)
def test_values_out_of_range_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        ({"reader": 1e-3}, r"missing \['writer'\]"),
        ({"reader": 1e-3, "writer": 1e-3, "speaker": 1e-3}, r"unknown \['speaker'\]"),
        ({"reader": None, "writer": None}, "nothing would train"),
    ],
)
def test_parts_must_be_named_exactly(lr: dict[str, float | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(lr=lr).freeze(TwoParts())
