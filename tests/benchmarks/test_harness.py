"""What the benchmarks share measures what it says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import harness
import pytest
import torch
from harness import Column, alternate, extra_mib, report


def test_the_ways_take_turns_and_the_median_round_counts(monkeypatch) -> None:
    clock, calls, cost = [0.0], [], {"slow": iter([9, 5, 3, 4]), "quick": iter([9, 1, 2, 8])}
    monkeypatch.setattr(harness.time, "perf_counter", lambda: clock[0])

    def run(way: str) -> None:
        calls.append(way)
        clock[0] += next(cost[way])

    assert alternate({way: lambda way=way: run(way) for way in cost}, repeats=3) == {"slow": 4, "quick": 2}
    assert all(Counter(calls[i : i + 2]) == {"slow": 1, "quick": 1} for i in range(0, 8, 2))


def test_growth_sees_what_a_call_gives_back_before_it_ends(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\n"
        "from harness import growth_mib\n"
        "torch.ones(8).sum()\n"
        "print(growth_mib(lambda: torch.ones(16 * 2**20).sum()))\n"
    )
    # In a process of its own, as the benchmarks do: the system takes cold pages of a large old one away meanwhile.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(harness.__file__).parent))
        assert 60 < extra_mib(script) < 100


def test_the_table_is_for_people_and_the_last_line_for_programs(capsys) -> None:
    rows = [{"n": 10_000, "kind": "static", "took_s": 0.0015}]
    columns = [Column("n", "frames", ","), Column("kind", "video"), Column("took_s", "took, ms", ".2f", scale=1e3)]
    report("Some title", rows, columns, as_json=False)
    table = capsys.readouterr().out
    assert all(text in table for text in ("Some title", "frames", "10,000", "static", "took, ms", "1.50"))
    report("Some title", rows, columns, as_json=True)
    *_, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert (told["title"], told["threads"], told["rows"]) == ("Some title", torch.get_num_threads(), rows)
