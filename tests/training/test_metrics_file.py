"""metrics.csv where the disk is full."""

from __future__ import annotations

import csv
import errno
import resource
from pathlib import Path

import pytest

from vilamp.training.metrics_file import metrics_file


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_disk_that_is_full_when_a_column_comes_costs_no_row(tmp_path: Path) -> None:
    logger = metrics_file(tmp_path)
    for step in range(50):
        logger.log_metrics({"train/loss": 1.5, "memory": 2.0}, step)
    logger.save()
    before = (tmp_path / "metrics.csv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        logger.log_metrics({"data/skipped": 1.0}, 50)
        with pytest.raises(OSError) as refused:
            logger.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.errno == errno.EFBIG
    assert (tmp_path / "metrics.csv").read_bytes() == before
    logger.finalize("failed")  # there is room again
    assert [int(row["step"]) for row in rows(tmp_path)] == list(range(51))
    assert rows(tmp_path)[0] == {"step": "0", "train/loss": "1.5", "memory": "2.0", "data/skipped": ""}
    assert rows(tmp_path)[50] == {"step": "50", "train/loss": "", "memory": "", "data/skipped": "1.0"}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
