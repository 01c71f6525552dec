"""The videos that decoders are tested with."""

from __future__ import annotations

import os
from fractions import Fraction

import pytest

from vilamp.probe import probe_video
from vilamp.testing.barcodes import write_video


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system does not tell how it schedules")
def test_no_encoder_changes_how_the_writer_is_scheduled() -> None:
    """SVT-AV1 would, where the tests are run as root."""
    before = os.sched_getscheduler(0)
    clip = write_video(list(range(2)), Fraction(1, 1), codec="libsvtav1", size=(160, 80), options={"preset": "10"})
    assert probe_video(clip).codec == "av1"
    assert os.sched_getscheduler(0) == before
