"""The benchmark of selection: its baseline is the published procedure, and its figures can be read by a program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import selection
from golden_selection import EXACT, TIED, embeddings

KEYS = {
    "n",
    "kind",
    "keyframes",
    "ours_s",
    "published_s",
    "bare_pass_s",
    "published_over_ours",
    "ours_over_bare_pass",
    "ours_extra_mib",
    "published_extra_mib",
    "bare_pass_extra_mib",
}


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case["id"])
def test_the_baseline_takes_the_frames_of_the_published_implementation(case) -> None:
    assert selection.published(*embeddings(case), case["K"], case["f2f_thrd"], case["f2t_thrd"]) == case["before"]


@pytest.mark.parametrize("case", TIED, ids=lambda case: case["id"])
def test_of_equal_frames_the_baseline_takes_one_of_the_same_scene(case) -> None:
    taken = selection.published(*embeddings(case), case["K"], case["f2f_thrd"], case["f2t_thrd"])
    assert [frame * case["params"]["C"] // case["N"] for frame in taken] == case["before_scenes"]


@pytest.mark.parametrize("kind", selection.KINDS)
def test_ours_takes_the_frames_of_the_baseline(kind) -> None:
    calls = selection.ways(kind, 1_000)
    taken = calls["published"]()
    assert calls["ours"]().tolist() == taken
    assert len(taken) == {"static": 1, "few scenes": selection.FEW_SCENES}.get(kind, selection.K)


def test_the_last_line_is_one_json_object_with_the_figures_of_the_table() -> None:
    command = [sys.executable, str(Path(selection.__file__)), "--quick", "--json"]
    *table, last = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    (row,) = json.loads(last)["rows"]
    assert row.keys() == KEYS
    assert row["published_over_ours"] == row["published_s"] / row["ours_s"]
    assert row["ours_over_bare_pass"] == row["ours_s"] / row["bare_pass_s"]
    assert min(value for key, value in row.items() if key.endswith("_s")) > 0
    assert any(f"{row['ours_s'] * 1e3:.3f}" in line for line in table)


def test_a_difference_between_the_two_stops_the_benchmark(monkeypatch) -> None:
    monkeypatch.setattr(selection, "published", lambda *_: [0])
    with pytest.raises(ValueError, match="60 frames, random: ours and the published procedure take different frames"):
        selection.measure("random", 60, 1)
