"""The pooling cases of the published implementation, as the arguments of a merger (see README.md here)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

HERE = Path(__file__).parent
CASES: list[dict[str, Any]] = json.loads((HERE / "sigpool_cases.json").read_text())["cases"]

MAPS = {
    "linear_q": "query_map",
    "linear_iq": "patch_query_map",
    "linear_ik": "patch_anchor_map",
    "linear_k": "anchor_map",
}
"""What the published implementation calls the maps, and what we call them."""

TOLERANCES = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Of the greatest number in the result."""

ALPHA_TOLERANCE = 1e-4
"""Of the gradient of alpha, a sum over all patches in which nearly everything cancels.

In float32 the published implementation's own is up to 4.5e-5 away from what the same formula gives in float64.
"""


@dataclass(frozen=True)
class Pooling:
    """One case.

    Attributes:
        patches: float[N, P, D] of all frames.
        anchor_of: int64[N], each frame's anchor among the frames.
        query: float[Ds].
        weights: of the four maps and alpha, by our names.
        tokens: float[N, D], the result.
        grad_tokens: float[N, D], what the gradients belong to, or None.
        grads: of patches (in both roles), query and the weights, by our names.
    """

    patches: Tensor
    anchor_of: Tensor
    query: Tensor
    weights: dict[str, Tensor]
    tokens: Tensor
    grad_tokens: Tensor | None
    grads: dict[str, Tensor]

    def require_close(self, name: str, got: Tensor, want: Tensor) -> None:
        """Raise AssertionError where a number is further off than the tolerance of the case's type."""
        assert got.shape == want.shape and got.dtype == want.dtype, name
        tolerance = ALPHA_TOLERANCE if name == "alpha" else TOLERANCES[want.dtype]
        assert float((got - want).abs().max()) <= tolerance * float(want.abs().max()), name


def _ours(name: str) -> str:
    """The published name of a weight -> ours."""
    theirs, _, kind = name.partition(".")
    return "alpha" if theirs == "tau" else f"{MAPS[theirs]}.{kind}"


def pooling(case: dict[str, Any]) -> Pooling:
    """Read one of :data:`CASES`."""
    with safe_open(HERE / "sigpool.safetensors", "pt") as file:
        prefix = case["id"] + "/"
        data = {key.removeprefix(prefix): file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    grads = {key.removeprefix("grad."): value for key, value in data.items() if key.startswith("grad.")}
    return Pooling(
        patches=data["img"],
        anchor_of=data["anchor_index"],
        query=data["query"],
        weights={_ours(key[2:]): value for key, value in data.items() if key.startswith("w.")},
        tokens=data["out"],
        grad_tokens=data.get("grad_out"),
        grads={{"img": "patches", "query": "query"}.get(key) or _ours(key): value for key, value in grads.items()},
    )
