"""``maps=four`` against what the published implementation computes, in all its types and with gradients."""

from __future__ import annotations

import pytest
from golden_pooling import CASES, pooling

from vilamp.mergers import _in_blocks
from vilamp.mergers.differential import DifferentialMerger


def test_all_cases_are_here() -> None:
    assert len(CASES) == 10
    assert sum(case["has_grads"] for case in CASES) == 2


@pytest.mark.parametrize("frames_per_block", [1, 4, 1000])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_tokens_and_gradients(case, frames_per_block: int, monkeypatch) -> None:
    for name in ("FORWARD_NUMBERS", "BACKWARD_NUMBERS"):
        monkeypatch.setattr(_in_blocks, name, frames_per_block * case["P"] * case["H"])
    golden = pooling(case)
    merger = DifferentialMerger(maps="four", learn_alpha=True, dim=case["H"], query_dim=case["Q"])
    merger.to(golden.patches.dtype).load_state_dict(golden.weights)
    patches, query = golden.patches.requires_grad_(), golden.query.requires_grad_()
    tokens = merger(patches, patches, golden.anchor_of, query)[:, 0]
    golden.require_close("tokens", tokens.detach(), golden.tokens)
    if golden.grad_tokens is not None:
        tokens.backward(golden.grad_tokens)
        leaves = {"patches": patches, "query": query, **dict(merger.named_parameters())}
        assert leaves.keys() == golden.grads.keys()
        for name, want in golden.grads.items():
            grad = leaves[name].grad
            assert grad is not None, name
            golden.require_close(name, grad, want)


def test_a_learned_alpha_may_be_negative() -> None:
    (case,) = (case for case in CASES if case["tau"] < 0)
    assert float(pooling(case).weights["alpha"]) < 0
