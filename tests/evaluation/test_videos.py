"""Which questions go together, and what their videos are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from vilamp.benchmark import Item, VideoFile
from vilamp.errors import DataError
from vilamp.evaluation.videos import group, source_of
from vilamp.samples import SkipSample


def _item(key: str, path: str | None, **place: int) -> Item:
    return Item(key, None if path is None else VideoFile(Path(path), **place), "what?")


def test_the_questions_about_one_video_are_one_group() -> None:
    items = [_item("0", "/d/a/1.mp4"), _item("1", "/d/b/1.mp4"), _item("2", None), _item("3", "/d/a/1.mp4"),
             _item("4", None)]  # fmt: skip
    groups = group(items)
    assert [[item.key for item in one.items] for one in groups] == [["0", "3"], ["1"], ["2"], ["4"]]
    assert [one.name for one in groups] == ["a/1.mp4", "b/1.mp4", None, None], "names repeat in other folders"


def test_names_do_not_depend_on_where_all_videos_are() -> None:
    for folder in ("/d", "/elsewhere/on/disk", "relative"):
        groups = group([_item("0", f"{folder}/a/1.mp4"), _item("1", f"{folder}/2.mp4")])
        assert [one.name for one in groups] == ["a/1.mp4", "2.mp4"]


def test_members_of_a_tar_are_told_by_their_places() -> None:
    groups = group([_item("0", "/d/v.tar", offset=512, size=10), _item("1", "/d/v.tar", offset=2048, size=10)])
    assert [one.name for one in groups] == ["v.tar:512", "v.tar:2048"]


def test_a_name_that_is_too_long_for_any_file_is_a_missing_video(tmp_path: Path) -> None:
    (one,) = group([_item("0", str(tmp_path / ("x" * 300)))])
    assert one.num_bytes is None
    with pytest.raises(SkipSample, match="missing_video"):
        source_of(VideoFile(tmp_path / ("x" * 300)))


def test_two_questions_with_one_key_and_none_at_all_are_errors() -> None:
    with pytest.raises(DataError, match="two questions of the benchmark have the key '0'"):
        group([_item("0", "a.mp4"), _item("0", "b.mp4")])
    with pytest.raises(DataError, match="no question"):
        group([])
