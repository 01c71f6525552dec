"""The selection cases of the published implementation, and their embeddings (see README.md here)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

GOLDEN = Path(__file__).resolve().parent
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "selector_cases.json").read_text())["cases"]
ROWS: list[tuple[int, int, list[int], list[int]]] = json.loads((GOLDEN / "fillup_cases.json").read_text())["rows"]
STORED = load_file(GOLDEN / "selector_inputs.safetensors")

EXACT = [case for case in CASES if not case["tie_sensitive"]]
TIED = [case for case in CASES if case["tie_sensitive"]]


def draw(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The embeddings of a case from its recipe, drawn and summed in float64 and then rounded to float32."""
    kind, length, width, p = case["kind"], case["N"], case["D"], case["params"]
    source = np.random.default_rng(case["seed"])
    normal = source.standard_normal
    if kind == "gauss":
        frames, query = normal((length, width)), normal(width)
    elif kind == "walk":
        start, steps = normal(width), normal((length, width))
        frames, query = start + np.cumsum(p["step"] * steps, axis=0), normal(width)
    elif kind in ("cone", "anti"):
        mean = normal(width)
        frames = p["mean"] * mean + normal((length, width))
        query = -mean if kind == "anti" else p["qmean"] * mean + normal(width)
    else:
        count = 2 if kind == "alternate" else p["C"]
        scenes, index = normal((count, width)), np.arange(length)
        shown = index % 2 if kind == "alternate" else index * count // length
        if kind == "shuffled":
            shown = source.integers(0, count, length)
        frames = scenes[shown] if kind == "exactdup" else scenes[shown] + p["noise"] * normal((length, width))
        query = scenes[p.get("target", 0) % count] + p["qnoise"] * normal(width)
    return torch.from_numpy(frames.astype("<f4")), torch.from_numpy(query.astype("<f4"))


def embeddings(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Unit frames float[N, D] and unit query float[D] of a case."""
    if case["stored"]:
        frames, query = STORED[f"{case['id']}.frames"], STORED[f"{case['id']}.query"]
    else:
        frames, query = draw(case)
    for name, value in (("frames", frames), ("query", query)):
        assert hashlib.sha256(value.numpy().tobytes()).hexdigest() == case[f"sha256_{name}"]
    return F.normalize(frames, dim=-1), F.normalize(query, dim=-1)
