"""The differential selector agrees frame by frame with the published implementation (see tests/golden/README.md)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_selection import CASES, EXACT, ROWS, STORED, TIED, draw, embeddings

from vilamp.interfaces import frame_relevance
from vilamp.selectors.differential import NEVER, DifferentialSelector, fill_gaps, greedy_walk


def select(case: dict[str, Any], fill_up: bool) -> list[int]:
    frames, query = embeddings(case)
    floor = None if case["f2t_thrd"] == -1 else case["f2t_thrd"]
    selector = DifferentialSelector(tau=case["f2f_thrd"], relevance_floor=floor, fill_up=fill_up)
    timestamps = torch.arange(len(frames), dtype=torch.float64)
    return selector(frames, query, case["K"], timestamps=timestamps).keyframes.tolist()


def test_all_of_the_data_is_here() -> None:
    assert (len(EXACT), len(TIED), len(ROWS), len(STORED)) == (27, 2, 211, 17 * 3)


@pytest.mark.parametrize("case", [case for case in CASES if case["stored"]], ids=lambda case: case["id"])
def test_the_recipes_are_those_of_the_stored_embeddings(case) -> None:
    frames, query = draw(case)
    assert torch.equal(frames, STORED[f"{case['id']}.frames"])
    assert torch.equal(query, STORED[f"{case['id']}.query"])


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case["id"])
def test_the_frames_taken_agree(case) -> None:
    assert select(case, fill_up=False) == case["before"]


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case["id"])
def test_the_order_of_taking_agrees(case) -> None:
    frames, query = embeddings(case)
    relevance = frame_relevance(frames, query)
    ranking = relevance.masked_fill(relevance < case["f2t_thrd"], NEVER)
    assert greedy_walk(frames, ranking, case["K"], case["f2f_thrd"]).tolist() == case["pick_order"]


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case["id"])
def test_the_frames_after_fill_up_agree(case) -> None:
    assert select(case, fill_up=True) == case["after"]


@pytest.mark.parametrize("case", TIED, ids=lambda case: case["id"])
def test_of_equal_frames_one_of_the_same_scene_is_taken(case) -> None:
    length, count = case["N"], case["params"]["C"]
    assert [frame * count // length for frame in select(case, fill_up=False)] == case["before_scenes"]
    assert fill_gaps(torch.tensor(case["before"]), length, case["K"]).tolist() == case["after"]


@pytest.mark.parametrize("case", [case for case in CASES if case["stored"]], ids=lambda case: case["id"])
def test_the_relevance_agrees(case) -> None:
    torch.testing.assert_close(frame_relevance(*embeddings(case)), STORED[f"{case['id']}.f2t_scores"])


def test_fill_up_alone_agrees() -> None:
    wrong = [
        row
        for row in ROWS
        if fill_gaps(torch.tensor(row[2], dtype=torch.int64), num_frames=row[0], num_keyframes=row[1]).tolist()
        != row[3]
    ]
    assert not wrong
