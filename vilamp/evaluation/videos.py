"""The videos of a benchmark: each with all questions about it, decoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from vilamp.benchmark import Item, VideoFile
from vilamp.data.decode import VideoReader
from vilamp.data.shard_sample import checksum_of
from vilamp.data.tar_listing import Member
from vilamp.errors import DataError
from vilamp.evaluation.answers import MISSING
from vilamp.probe import FileRange
from vilamp.samples import SkipSample, Video


@dataclass(frozen=True)
class Group:
    """One video and the questions about it; a question about no video is a group of its own.

    Attributes:
        video: where it lies, None for text alone.
        items: its questions, in the order of the benchmark.
        name: how the video is called in the answers, the same wherever all videos are moved to; None for text alone.
    """

    video: VideoFile | None
    items: tuple[Item, ...]
    name: str | None

    @property
    def num_bytes(self) -> int | None:
        """The size of the video, None where it is missing (or there is none)."""
        if self.video is None or not self.video.path.is_file():
            return None
        return self.video.size or self.video.path.stat().st_size


def group(items: Sequence[Item]) -> list[Group]:
    """The groups, in the order in which each video is first asked about.

    Raises:
        DataError: no question, or two with one key.
    """
    if not items:
        raise DataError("the benchmark has no question")
    by_key: dict[str, Item] = {}
    by_video: dict[object, list[Item]] = {}
    for item in items:
        if by_key.setdefault(item.key, item) is not item:
            raise DataError(f"two questions of the benchmark have the key {item.key!r}; each needs one of its own")
        by_video.setdefault(item.key if item.video is None else item.video, []).append(item)
    parents = {str(item.video.path.absolute().parent) for item in items if item.video is not None}
    common = Path(os.path.commonpath(parents)) if parents else Path()
    return [
        Group(video := of_video[0].video, tuple(of_video), None if video is None else _name(video, common))
        for of_video in by_video.values()
    ]


def _name(video: VideoFile, common: Path) -> str:
    below = video.path.absolute().relative_to(common).as_posix()
    return below if video.size is None else f"{below}:{video.offset}"


class Videos(Dataset["Video | SkipSample | None"]):
    """Decodes the videos of groups; what cannot be had is returned as the reason.

    Args:
        groups: whose videos.
        reader: decodes.
    """

    def __init__(self, groups: Sequence[Group], reader: VideoReader) -> None:
        self.groups = groups
        self.reader = reader

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> Video | SkipSample | None:
        """The video of a group; None where its question is about none."""
        try:
            return self._read(self.groups[number])
        except SkipSample as skip:
            return skip

    def _read(self, group: Group) -> Video | None:
        if group.video is None:
            return None
        path, size = group.video.path, group.num_bytes
        if size is None:
            raise SkipSample(MISSING, f"there is no {path}")
        if group.video.digest:
            digest, _ = checksum_of(path, Member(group.video.offset, size))
            if digest != group.video.digest:
                raise SkipSample("checksum", f"{path}: the video's bytes are not those that were indexed")
        return self.reader.read(FileRange(str(path), group.video.offset, size), str(group.name))
