"""Training does not creep, and the check would notice if it did."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import memory_creep
import pytest
from harness import HONEST_MALLOC
from memory_creep import judge

_BOTH = """
import json, sys, torch
import memory_creep
held = []
sound = memory_creep.train(15, longest=32)
leaky = memory_creep.train(15, longest=32, after_step=lambda step: held.append(torch.ones(2**18)))
print(json.dumps([memory_creep.judge(readings).creeps for readings in (sound, leaky)]))
"""
"""A short training, and the same with a leak of 1 MiB a step.  The later of the two finds all caches filled."""


def test_a_short_training_does_not_creep_and_a_planted_leak_does() -> None:
    environment = {**os.environ, **HONEST_MALLOC, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        [sys.executable, "-c", _BOTH], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert json.loads(child.stdout.splitlines()[-1]) == [False, True]


@pytest.mark.soak
def test_three_hundred_steps_do_not_creep() -> None:
    assert subprocess.run([sys.executable, str(Path(memory_creep.__file__))], check=False).returncode == 0


def noisy(steps: int, slope: float, noise: float) -> list[float]:
    draw = random.Random(0)
    return [500 + slope * step + draw.uniform(-noise, noise) for step in range(steps)]


@pytest.mark.parametrize(
    ("slope", "noise", "creeps"), [(0, 0, False), (0, 30, False), (0.05, 0, True), (0.5, 20, True)]
)
def test_a_trend_is_told_from_noise(slope: float, noise: float, creeps: bool) -> None:
    assert judge(noisy(300, slope, noise)).creeps is creeps


def test_what_fills_in_the_first_third_is_no_trend() -> None:
    assert not judge([500 + min(step, 90) for step in range(300)]).creeps


def test_a_trend_needs_some_steps() -> None:
    with pytest.raises(ValueError, match="at least 9 steps, got 8"):
        judge([1.0] * 8)
