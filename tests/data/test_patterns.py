"""What ``data.train`` and ``data.val`` accept."""

from __future__ import annotations

from pathlib import Path

import pytest

from vilamp.data.patterns import expand_patterns
from vilamp.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a few shards in it."""
    for name in ("a-000.tar", "a-001.tar", "a-002.tar", "b.tar", "deep/er/c.tar", "odd-{1,2}[x].tar"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("b.tar", ["b.tar"]),
        ("a-*.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("a-00?.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("a-00[02].tar", ["a-000.tar", "a-002.tar"]),
        ("a-{000..002}.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("{b,a-001}.tar", ["b.tar", "a-001.tar"]),
        ("{b,a-*}.tar", ["b.tar", "a-000.tar", "a-001.tar", "a-002.tar"]),
        ("**/c.tar", ["deep/er/c.tar"]),
        (["b.tar", "a-00[01].tar"], ["b.tar", "a-000.tar", "a-001.tar"]),
        ("odd-{1,2}[x].tar", ["odd-{1,2}[x].tar"]),
    ],
)
def test_patterns(folder: Path, patterns: str | list[str], expected: list[str]) -> None:
    assert expand_patterns(patterns, "data.train") == expected
    absolute = [patterns] if isinstance(patterns, str) else patterns
    found = expand_patterns([f"{folder}/{pattern}" for pattern in absolute], "data.train")
    assert found == [f"{folder}/{name}" for name in expected]


def test_home_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert expand_patterns("~/b.tar", "data.train") == [f"{folder}/b.tar"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("nothing-*.tar", r"data\.train: no file matches 'nothing-\*\.tar'; relative paths start at"),
        ("a-{000..004}.tar", r"no file matches 'a-\{000\.\.004\}\.tar' \(looked for a-003\.tar\)"),
        (["b.tar", "gone.tar"], "no file matches 'gone.tar'"),
        ("~nobody-of-that-name/x.tar", "no file matches"),
        ("{" + ",".join(f"long-name-{i}" for i in range(100)) + "}.tar", "no file matches"),
        ("nul\0.tar", "no file matches"),
        ([], "names no shard: give at least one"),
        ("", "'' is no pattern of shards"),
        ([None], "None is no pattern of shards"),
        ("deep", r"deep is no file; to take all shards of a folder write deep/\*\.tar"),
        ("{a-000,b.tar", "braces of .* do not match"),
        ("{b,b}.tar", r"b\.tar is matched more than once"),
        (["b.tar", "deep/../b.tar"], r"b\.tar is matched more than once"),
        ("pipe:cat b.tar", "no local path"),
        ("https://somewhere/b.tar", "no local path"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, patterns: str | list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        expand_patterns(patterns, "data.train")


def test_two_names_of_one_file_count_as_one(folder: Path) -> None:
    (folder / "link.tar").symlink_to(folder / "b.tar")
    with pytest.raises(DataError, match="more than once"):
        expand_patterns(["b.tar", "link.tar"], "data.val")
