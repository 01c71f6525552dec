"""The benchmark of merging: its baseline is the published procedure, and its figures can be read by a program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import merging
import pytest
import torch
from golden_pooling import CASES, pooling

from vilamp.mergers.differential import DifferentialMerger


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_baseline_is_the_published_computation(case) -> None:
    golden = pooling(case)
    merger = DifferentialMerger(maps="four", learn_alpha=True, dim=case["H"], query_dim=case["Q"])
    merger.to(golden.patches.dtype).load_state_dict(golden.weights)
    patches = golden.patches.requires_grad_()
    tokens = merging.published(merger, patches, golden.anchor_of.tolist(), golden.query)
    golden.require_close("tokens", tokens.detach(), golden.tokens)
    if golden.grad_tokens is not None:
        tokens.backward(golden.grad_tokens)
        assert patches.grad is not None
        golden.require_close("patches", patches.grad, golden.grads["patches"])


@pytest.mark.parametrize("kind", ["forward", "training"])
def test_the_release_form_does_what_the_baseline_does(kind: str, monkeypatch) -> None:
    monkeypatch.setattr(merging, "PATCHES", 20)
    calls = merging.ways(kind, 16, 64)
    ours, theirs = calls["release"](), calls["published"]()
    if kind == "forward":
        torch.testing.assert_close(ours, theirs)
    else:
        grads = list(zip(ours, theirs, strict=True))
        assert sum(theirs is not None for _, theirs in grads) == 10  # patches, alpha, and four maps
        for got, want in grads:
            assert (got is None) == (want is None)
            if want is not None:
                torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))


def test_the_last_line_is_one_json_object_with_the_figures_of_the_table() -> None:
    command = [sys.executable, str(Path(merging.__file__)), "--quick", "--json"]
    *table, last = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    rows = json.loads(last)["rows"]
    assert [(row["pass"], row["width"], row["n"]) for row in rows] == merging.QUICK
    for row in rows:
        assert row.keys() == {column.key for column in merging.COLUMNS}
        assert row["published_over_release"] == row["published_s"] / row["release_s"]
        assert row["release_over_products"] == row["release_s"] / row["products_s"]
        assert row["paper_over_mean"] == row["paper_s"] / row["mean_s"]
        assert any(f"{row['release_s']:.3f}" in line for line in table)


def test_a_way_that_is_left_out_leaves_its_columns_empty() -> None:
    column = next(column for column in merging.COLUMNS if column.key == "published_s")
    assert column.show({"published_s": 1.5}) == "1.50"
    assert column.show({"paper_s": 1.5}) == "-"
