"""The videos of a benchmark: each with all questions about it, decoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from vilamp.benchmark import Item, Spliced, Stretch, VideoFile
from vilamp.data.decode import VideoReader
from vilamp.data.shard_sample import checksum_of
from vilamp.data.tar_listing import Member
from vilamp.errors import DataError
from vilamp.evaluation.answers import MISSING
from vilamp.probe import FileRange
from vilamp.samples import SkipSample, Video

CASES_AT_ONCE = 16
"""Of the questions about one haystack, so many go through it in one pass: each has a visual sequence that grows."""

Haystack = tuple[Stretch, ...]


@dataclass(frozen=True)
class Group:
    """One video and the questions about it; a question about no video is a group of its own.

    Attributes:
        video: where it lies, None for text alone; a haystack where each question is about its own splice into it.
        items: its questions, in the order of the benchmark.
        name: how the video is called in the answers, the same wherever all videos are moved to; None for text alone,
            and for a haystack, whose questions are about needles.
    """

    video: VideoFile | Haystack | None
    items: tuple[Item, ...]
    name: str | None

    @property
    def is_haystack(self) -> bool:
        """Whether each question is about a video of its own, spliced into this one."""
        return isinstance(self.video, tuple)

    @property
    def files(self) -> list[VideoFile]:
        """All files of the video, needles apart."""
        if isinstance(self.video, tuple):
            return [stretch.file for stretch in self.video]
        return [] if self.video is None else [self.video]

    @property
    def num_bytes(self) -> int | None:
        """The size of the video, None where it is missing (or there is none)."""
        if not self.files or not all(file.is_there for file in self.files):
            return None
        return sum(size_of(file) for file in self.files)


def size_of(video: VideoFile) -> int:
    """Bytes of a video that is there."""
    return video.size or video.path.stat().st_size


def source_of(video: VideoFile) -> FileRange:
    """A video to read.

    Raises:
        SkipSample: ``missing_video``, or ``checksum`` where its bytes are not those of the digest.
    """
    if not video.is_there:
        raise SkipSample(MISSING, f"there is no {video.path}")
    size = size_of(video)
    if video.digest:
        digest, _ = checksum_of(video.path, Member(video.offset, size))
        if digest != video.digest:
            raise SkipSample("checksum", f"{video.path}: the video's bytes are not those that were indexed")
    return FileRange(str(video.path), video.offset, size)


def group(items: Sequence[Item]) -> list[Group]:
    """The groups, in the order in which each video is first asked about; a haystack has as many as its cases need.

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
        by_video.setdefault(_watched(item) or item.key, []).append(item)
    files = [item.video for item in items if isinstance(item.video, VideoFile)]
    common = Path(os.path.commonpath({str(file.path.absolute().parent) for file in files})) if files else Path()
    groups = []
    for of_video in by_video.values():
        video = _watched(of_video[0])
        name = _name(video, common) if isinstance(video, VideoFile) else None
        at_once = CASES_AT_ONCE if isinstance(video, tuple) else len(of_video)
        for first in range(0, len(of_video), at_once):
            groups.append(Group(video, tuple(of_video[first : first + at_once]), name))
    return groups


def _watched(item: Item) -> VideoFile | Haystack | None:
    """What is read once for all questions about it."""
    return item.video.haystack if isinstance(item.video, Spliced) else item.video


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
        """The video of a group; None where its question is about none, and for a haystack, which is never whole."""
        try:
            return self._read(self.groups[number])
        except SkipSample as skip:
            return skip

    def _read(self, group: Group) -> Video | None:
        if not isinstance(group.video, VideoFile):
            return None
        return self.reader.read(source_of(group.video), str(group.name))
