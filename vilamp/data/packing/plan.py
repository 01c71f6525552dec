"""What goes into which shard, decided before anything is written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vilamp.data.annotations import MAX_BYTES, MAX_QUESTIONS, VIDEO_EXTENSIONS, parse_annotation
from vilamp.data.index_file import LeftOut
from vilamp.data.packing.layouts import Row
from vilamp.data.shard_sample import MAX_MEMBER_BYTES
from vilamp.data.tar_listing import BLOCK, is_safe_text
from vilamp.samples import SkipSample

_EXTENSION = re.compile(r"[a-z0-9]{1,16}")


@dataclass(frozen=True)
class PlannedSample:
    """One video and all questions about it, or the text-only questions of one row.

    Attributes:
        key: of the sample, unique in the set, without dots.
        video: path below the folder of videos; empty for text alone.
        size: bytes of the video.
        questions: as they go into the JSON.
        rows: where each question stands.
    """

    key: str
    video: str
    size: int
    questions: tuple[dict[str, Any], ...]
    rows: tuple[str, ...]

    @property
    def extension(self) -> str:
        """Of the member that holds the video."""
        return PurePosixPath(self.video).suffix[1:].lower()

    def annotation(self) -> bytes:
        """The content of the JSON."""
        video = {"video": self.extension} if self.video else {}
        return json.dumps({**video, "questions": self.questions}, ensure_ascii=False).encode()

    def tar_bytes(self) -> int:
        """What the members take in a tar, with their headers."""
        sizes = [len(self.annotation()), *([self.size] if self.video else [])]
        return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes)


@dataclass(frozen=True)
class PlannedShard:
    """One tar.

    Attributes:
        name: of the file.
        samples: in the order of the tar.
    """

    name: str
    samples: tuple[PlannedSample, ...]

    @property
    def digest(self) -> str:
        """Of all that decides its content; of the videos that is path and size."""
        digest = hashlib.blake2b(digest_size=16)
        for sample in self.samples:
            head = json.dumps([sample.key, sample.video, sample.size, sample.rows])
            digest.update(head.encode() + b"\n" + sample.annotation() + b"\n")
        return digest.hexdigest()


def plan_samples(rows: Iterable[Row], videos: Path) -> tuple[list[PlannedSample], list[LeftOut]]:
    """Find the videos and put the questions about each together, in the order in which they first come.

    Args:
        rows: of the annotations.
        videos: the folder in which relative paths begin; also tried with the folder of the annotation file.
    """
    groups: dict[str, _Group] = {}
    left_out: list[LeftOut] = []
    finder = _Finder(videos.resolve(), videos.absolute())
    for row in rows:
        try:
            # Text alone stands by itself; no path of a video ends with a slash.
            name = f"{row.source}/" if row.video is None else finder.find(row.video, row.folder)
        except SkipSample as skip:
            lost = LeftOut(row.source, row.video or "", len(row.questions), skip.reason, skip.detail[:300])
            left_out.append(lost)
            continue
        group = groups.setdefault(name, _Group())
        for question in row.questions:
            try:
                group.add(question, row.source)
            except SkipSample as skip:
                left_out.append(LeftOut(row.source, row.video or "", 1, skip.reason, skip.detail[:300]))
    taken: set[str] = set()
    samples = []
    for name, group in groups.items():
        if group.questions:
            video = "" if name.endswith("/") else name
            questions, sources = tuple(group.questions), tuple(group.rows)
            samples.append(PlannedSample(_key(name, taken), video, finder.sizes.get(name, 0), questions, sources))
    return samples, left_out


def plan_shards(samples: Sequence[PlannedSample], name: str, shard_size: int) -> list[PlannedShard]:
    """Cut the samples into shards of at most ``shard_size`` bytes, or of one sample where that is larger."""
    groups: list[list[PlannedSample]] = []
    room = 0
    for sample in samples:
        size = sample.tar_bytes()
        if not groups or size > room:
            groups.append([])
            room = shard_size
        groups[-1].append(sample)
        room -= size
    return [PlannedShard(f"{name}-{i:06d}.tar", tuple(group)) for i, group in enumerate(groups)]


class _Finder:
    """Files below a folder by what rows call them."""

    def __init__(self, root: Path, called: Path) -> None:
        self.root = root
        self.called = called  # as the user names the folder, which may be a link
        self.sizes: dict[str, int] = {}

    def find(self, video: str, folder: str) -> str:
        """The path of a video below the root.

        Raises:
            SkipSample: ``bad_path``, ``missing_file``, ``not_a_file``, ``unreadable_file``, ``ambiguous_file``,
                ``too_large``, or ``bad_name`` where nothing tells what the file is.
        """
        path = PurePosixPath(video.replace("\\", "/"))
        for root in (self.root.as_posix(), self.called.as_posix()):
            if path.is_absolute() and path.is_relative_to(root):
                path = path.relative_to(root)
        if not is_safe_text(video):
            told = f"{ascii(video)[:100]} holds a control character or is no UTF-8; give the file another name"
            raise SkipSample("bad_path", told)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise SkipSample("bad_path", f"{ascii(video)[:100]} is no path below the folder of videos")
        places = [PurePosixPath(folder) / path, path] if folder else [path]
        # macOS writes an accent apart from its letter, and most texts have them in one.
        forms = [PurePosixPath(unicodedata.normalize(form, str(place))) for place in places for form in ("NFC", "NFD")]
        spelt = dict.fromkeys([*places, *forms])
        found = next((name for place in spelt if (name := self._file(place, video))), None)
        if found is None:
            names = " or ".join(map(str, places))
            if any(os.path.lexists(self.root / place) for place in spelt):
                raise SkipSample("not_a_file", f"{names} is a folder, a device or a broken link, and no video")
            raise SkipSample("missing_file", f"there is no {names} below the folder of videos")
        if self.sizes[found] > MAX_MEMBER_BYTES:
            told = f"{found} has {self.sizes[found]} bytes, {MAX_MEMBER_BYTES} are allowed"
            raise SkipSample("too_large", f"{told}; ffmpeg -i FILE -vf scale=-2:480 FILE.mp4 makes a smaller one")
        return found

    def _file(self, place: PurePosixPath, video: str) -> str | None:
        """The place itself, or with one of the usual extensions, since many sets name a video by its number."""
        if self._exists(place):
            if not _EXTENSION.fullmatch(place.suffix[1:].lower()) or place.suffix.lower() == ".json":
                raise SkipSample("bad_name", f"{video} has no extension of a video")
            return place.as_posix()
        names = [place.with_name(f"{place.name}.{extension}") for extension in sorted(VIDEO_EXTENSIONS)]
        found = [name.as_posix() for name in names if self._exists(name)]
        if len(found) > 1:
            raise SkipSample("ambiguous_file", f"{video} can be {' or '.join(found)}")
        return found[0] if found else None

    def _exists(self, place: PurePosixPath) -> bool:
        name = place.as_posix()
        if name not in self.sizes:
            try:
                status = (self.root / place).stat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            except OSError as error:  # a folder that may not be entered
                if error.errno == errno.ENAMETOOLONG:  # as one spelling may be where the other is a file's
                    return False
                raise SkipSample("unreadable_file", f"{name[:100]}: {error.strerror}") from error
            if not stat.S_ISREG(status.st_mode):
                return False
            self.sizes[name] = status.st_size
        return True


class _Group:
    """The questions about one video."""

    def __init__(self) -> None:
        self.questions: list[dict[str, Any]] = []
        self.rows: list[str] = []
        self.room = MAX_BYTES - 200  # for what stands around the questions

    def add(self, question: dict[str, Any], row: str) -> None:
        """Take a question.

        Raises:
            SkipSample: ``bad_json``, or ``too_many`` or ``too_large`` where a reader would refuse the whole file.
        """
        if len(self.questions) == MAX_QUESTIONS:
            raise SkipSample("too_many", f"a video has {MAX_QUESTIONS} questions at most")
        parse_annotation(json.dumps({"questions": [question]}).encode())
        try:
            size = len(json.dumps(question, ensure_ascii=False).encode()) + 2
        except UnicodeEncodeError as error:
            raise SkipSample("bad_json", str(error)) from error
        if size > self.room:
            raise SkipSample("too_large", f"the questions about a video may have {MAX_BYTES} bytes together")
        self.questions.append(question)
        self.rows.append(row)
        self.room -= size


def _key(name: str, taken: set[str]) -> str:
    """A name for a sample.  Readers of WebDataset end a key at the first dot, so that it has none."""
    stem = f"text/{name[:-1]}" if name.endswith("/") else PurePosixPath(name).with_suffix("").as_posix()
    key = re.sub(r"[.:\s]+", "_", stem)
    while key in taken:
        key = f"{key}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
    taken.add(key)
    return key
