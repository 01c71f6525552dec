"""The benchmark of a second question: its figures can be read, and its operations are those of the parts."""

from __future__ import annotations

import json

import pytest
import second_question
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vilamp.models.frame_features import Span


def test_the_last_lines_have_a_row_for_every_length(capsys) -> None:
    second_question.main(["--quick", "--json"])
    time, flops = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    for told, columns in ((time, second_question.TIME_COLUMNS), (flops, second_question.FLOP_COLUMNS)):
        (row,) = told["rows"]
        assert set(row) >= {column.key for column in columns}
    (row,) = flops["rows"]
    assert row["first_flop"] > row["second_flop"] > row["language_flop"] > 0
    # Qwen2-7B's 6.53 billion weights in its blocks and both products of attention for each of the tokens; the head is
    # for the last one alone.
    length = row["tokens"] + second_question.TEXT_TOKENS
    expected = 2 * 6.525e9 * length + 4 * 28 * 3584 * length**2
    assert row["language_flop"] == pytest.approx(expected, rel=0.001)
    assert row["seen_flop"] < 0.02 * row["second_flop"]


def test_attention_is_counted_as_both_of_its_products() -> None:
    query, key = torch.empty(1, 4, 8, 16), torch.empty(1, 2, 32, 16)
    assert second_question._attention(query.shape, key.shape) == 2 * 2 * 4 * 8 * 32 * 16
    with FlopCounterMode(display=False) as counter:
        query @ torch.empty(1, 4, 32, 16).transpose(2, 3) @ torch.empty(1, 4, 32, 16)
    assert counter.get_total_flops() == second_question._attention(query.shape, key.shape)


def test_a_tower_is_not_run_again() -> None:
    features = second_question.KeptFeatures(nn.Linear(3, 2), [torch.zeros(4, 3)], second_question.ROOM)
    assert second_question._flops(lambda: features.chunk([Span(0, 0, 4)])) > 0
    assert second_question._flops(lambda: features.chunk([Span(0, 0, 4)])) == 0
