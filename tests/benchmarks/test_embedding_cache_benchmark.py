"""The benchmark of kept embeddings: it runs, and does not measure a pass that asks the scorer after all."""

from __future__ import annotations

import json
from pathlib import Path

import embedding_cache
import pytest

from vilamp.embedding_cache import EmbeddingCache, Lookup


def test_the_last_line_is_one_json_object_with_the_figures_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    embedding_cache.main(["--quick", "--json"])
    *table, last = capsys.readouterr().out.splitlines()
    (row,) = json.loads(last)["rows"]
    assert row.keys() == {column.key for column in embedding_cache.COLUMNS}
    assert (row["videos"], row["questions"]) == (2, 8)
    assert row["encode_over_second"] == row["encode_s"] / row["second_s"]
    assert any(f"{row['encode_over_second']:.1f}" in line for line in table)


def test_a_cache_that_finds_nothing_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbeddingCache, "find", lambda self, key: Lookup(key))
    small = [*embedding_cache.QUICK, f"paths.data_dir={tmp_path}", "data.generate.progress=false"]
    with pytest.raises(ValueError, match="frames were embedded"):
        embedding_cache.measure([*small, "data.decode_timeout=null", "data.decode_memory=null"], 1)
