"""The format of the shards is as ``data/README.md`` writes it down."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import readme_block

import vilamp
from vilamp.config import compose
from vilamp.data.annotations import parse_annotation

ROOT = Path(vilamp.__file__).parents[1]
README = (ROOT / "data" / "README.md").read_text(encoding="utf-8")


def test_the_example_is_read_as_the_text_says() -> None:
    annotation = parse_annotation(readme_block.marked_blocks(README)["example:annotation"].encode())
    assert annotation.video == "mp4"
    full, short = annotation.questions
    assert (full.query, full.kind, full.evidence) == ("a woman takes a cup from a shelf", "colour", ((61.5, 64.0),))
    assert (short.query, short.kind, short.evidence) == (short.question, "other", ())


def test_every_reason_for_a_skip_is_listed() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "vilamp").rglob("*.py"))
    raised = re.findall(r'SkipSample\(\s*"(\w+)"', source) + re.findall(r'Skip\([^()]*?, "(\w+)", f?"', source)
    raised += re.findall(r'refused\.append\(\([^"]*"(\w+)",', source)
    listed = re.search(r"\| reason \|.*?\n\n", README, flags=re.DOTALL)
    assert listed is not None
    rows = [row.split("|")[1] for row in listed[0].splitlines()[2:] if row]
    assert {"decode", "bad_json", "too_long"} <= set(raised)
    assert set(raised) <= {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    "setting",
    [
        "data.train=my/train-*.tar",
        'data.train="my/train-{000000..000009}.tar"',
        "data.train=[a/*.tar,b/*.tar]",
    ],
)
def test_a_pattern_is_written_as_the_text_says(setting: str) -> None:
    assert shlex.quote(setting) in README
    cfg = compose("train", ["data=shards", setting, "data.val=some.tar"])
    assert cfg.data.train in ("my/train-*.tar", "my/train-{000000..000009}.tar", ["a/*.tar", "b/*.tar"])
