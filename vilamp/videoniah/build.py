"""Makes a specification of any haystacks and any needles."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vilamp import __version__
from vilamp.benchmark import LETTERS, Item, VideoFile
from vilamp.benchmarks._questions import Fields, QuestionFile
from vilamp.data.annotations import VIDEO_EXTENSIONS
from vilamp.data.frames import FrameSettings, plan_times
from vilamp.data.packing.choices import pick_option, read_options
from vilamp.data.shard_sample import checksum_of
from vilamp.data.tar_listing import Member
from vilamp.errors import ConfigError, DataError
from vilamp.probe import MAX_FRAMES, DecodeError, FileRange, probe_video
from vilamp.videoniah.spec import Case, File, Spec

LENGTHS = (2000, 4000, 6000, 8000, 10_000)
"""Frames of ViLaMP's VideoNIAH, at one a second."""
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
ERROR, JOIN, LOOP = WHEN_SHORT = ("error", "join", "loop")
"""What becomes of a haystack that has too few frames."""

Told = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What is to be built.

    Attributes:
        lengths: of the cases, in frames, needle included.
        depths: shares of the haystack's frames that stand before the needle.
        fps: frames a second, of haystacks and needles.
        questions: so many are drawn; None takes all.  Each is asked at every length and every depth.
        when_short: one of :data:`WHEN_SHORT`.
        seed: decides what is drawn.

    Raises:
        ConfigError: a value out of its range.
    """

    lengths: Sequence[int] = LENGTHS
    depths: Sequence[float] = DEPTHS
    fps: float = 1.0
    questions: int | None = None
    when_short: str = ERROR
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 2 or len(set(self.lengths)) < len(self.lengths):
            raise ConfigError(f"--lengths must be different numbers of frames, 2 or more, got {list(self.lengths)}")
        if not self.depths or not all(0 <= depth <= 1 for depth in self.depths):
            raise ConfigError(f"--depths must be shares from 0 to 1, got {list(self.depths)}")
        if len(set(self.depths)) < len(self.depths):
            raise ConfigError(f"--depths must differ, got {list(self.depths)}")
        if not 0 < self.fps < float("inf"):
            raise ConfigError(f"--fps must be positive, got {self.fps}")
        if self.questions is not None and self.questions < 1:
            raise ConfigError(f"--questions must be at least 1, got {self.questions}")
        if self.seed < 0:
            raise ConfigError(f"--seed must not be negative, got {self.seed}")


def read_needles(path: Path, videos: Path, columns: Mapping[str, str]) -> list[Item]:
    """The needles of a file: rows with a clip (as their video), a question, an answer, and options if there are any.

    Raises:
        ConfigError: no such column.
        DataError: no such file, or rows that cannot be used.
    """

    def options(value: Any, fields: Fields, answer: Any, video: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        found = read_options(value, fields, video)
        return tuple(found), (pick_option(found, answer, None, video),) if found else ()

    return QuestionFile(path, videos, columns, options, "--needles", "--column FIELD=NAME").items()


def build(
    haystacks: Sequence[Path], needles: Sequence[Item], folder: Path, wanted: Wanted, told: Told = lambda _: None
) -> Spec:
    """Draw the cases.

    Every question is asked in one haystack, drawn for it, at every length and depth, so that lengths and depths differ
    in nothing else.

    Args:
        haystacks: videos, and folders of them.
        needles: as :func:`read_needles` reads them.
        folder: where the specification will lie.
        wanted: see there.
        told: is told what a user should know.

    Raises:
        DataError: a video that is missing or cannot be read; a needle or a haystack of the wrong length; no haystack.
    """
    files: dict[Path, File] = {}

    def number_of(path: Path) -> int:
        if path not in files:
            files[path] = _file(path, folder, wanted.fps)
        return list(files).index(path)

    paths = _videos(haystacks)
    drawn = np.random.default_rng(wanted.seed)
    asked = sorted(drawn.permutation(len(needles))[: wanted.questions].tolist())
    clips = [number_of(_path(needles[place])) for place in asked]
    frames = [file.frames for file in files.values()]
    if max(frames) >= min(wanted.lengths):
        raise DataError(
            f"a needle has {max(frames)} frames at {wanted.fps:g} a second, which leaves no haystack in a case of "
            f"{min(wanted.lengths)}; set longer --lengths, or cut it shorter"
        )
    groups = _haystacks([number_of(path) for path in paths], list(files.values()), wanted, min(frames), told)
    places = drawn.permutation(len(asked)) % len(groups)  # each haystack gets as many
    cases = [
        _case(needles[place], clip, int(haystack), length, depth, list(files.values())[clip].frames, wanted.fps)
        for haystack, length, depth, (place, clip) in _in_order(places, wanted, list(zip(asked, clips, strict=True)))
    ]
    return Spec(
        made_by=f"vilamp {__version__}",
        seed=wanted.seed,
        fps=float(wanted.fps),
        lengths=sorted(wanted.lengths),
        depths=sorted(map(float, wanted.depths)),
        when_short=wanted.when_short,
        files=list(files.values()),
        haystacks=groups,
        cases=cases,
    )


def _path(item: Item) -> Path:
    assert isinstance(item.video, VideoFile)
    return item.video.path


def _videos(given: Sequence[Path]) -> list[Path]:
    """The videos, those of folders in the order of their names."""
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = [file for file in sorted(path.iterdir()) if file.suffix[1:].lower() in VIDEO_EXTENSIONS]
            if not inside:
                raise DataError(f"there is no video in {path}; name videos, or folders of them, as haystacks")
            found += inside
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _file(path: Path, folder: Path, fps: float) -> File:
    """What is to be known of a video; its container is read, no frame is decoded."""
    if not path.is_file():
        raise DataError(f"there is no video {path}")
    size = path.stat().st_size
    try:
        probe = probe_video(FileRange(str(path), 0, size))
        frames = len(plan_times(probe, FrameSettings(fps, MAX_FRAMES, size=1)))
    except DecodeError as error:
        raise DataError(f"{path} cannot be used: {error.cause}") from error
    digest, _ = checksum_of(path, Member(0, size))
    return File(Path(os.path.relpath(path, folder)).as_posix(), size, digest, frames)


def _haystacks(
    numbers: Sequence[int], files: Sequence[File], wanted: Wanted, shortest: int, told: Told
) -> list[list[int]]:
    """The files of each haystack."""
    need = max(wanted.lengths) - shortest
    if wanted.when_short == LOOP:
        return [[number] * -(-need // files[number].frames) for number in numbers]
    groups: list[list[int]] = [[]]
    for number in numbers:
        if wanted.when_short == ERROR and files[number].frames < need:
            raise DataError(
                f"{files[number].path} has {files[number].frames} frames at {wanted.fps:g} a second, a case of "
                f"{max(wanted.lengths)} needs {need}; set smaller --lengths, or --when-short {JOIN} (several haystacks "
                f"one after another) or {LOOP} (each again from its beginning)"
            )
        groups[-1].append(number)
        if sum(files[one].frames for one in groups[-1]) >= need:
            groups.append([])
    *whole, rest = groups
    if not whole:
        total = sum(files[number].frames for number in numbers)
        raise DataError(
            f"all haystacks together have {total} frames at {wanted.fps:g} a second, a case of {max(wanted.lengths)} "
            f"needs {need}; set smaller --lengths or --when-short {LOOP}"
        )
    if rest:
        told(f"{len(rest)} haystack(s) are left over, {', '.join(files[number].path for number in rest)}: too short")
    return whole


def _in_order(places: np.ndarray, wanted: Wanted, asked: Sequence[tuple[int, int]]) -> list[Any]:
    """(haystack, length, depth, question), as they are asked: what shares a pass over a haystack stands together."""
    chosen = [
        (int(place), length, number, depth)
        for (number, place), length, depth in itertools.product(enumerate(places), wanted.lengths, wanted.depths)
    ]
    return [(place, length, depth, asked[number]) for place, length, number, depth in sorted(chosen)]


def _case(item: Item, clip: int, haystack: int, length: int, depth: float, frames: int, fps: float) -> Case:
    before = round(depth * (length - frames))
    spans = item.evidence or ((0.0, frames / fps),)
    return Case(
        id=f"{item.key}/{length}/{depth:g}",
        haystack=haystack,
        needle=clip,
        length=length,
        depth=float(depth),
        before=before,
        question=item.question,
        options=list(item.options),
        answer=LETTERS[item.gold[0]] if item.options else item.answer,
        kind=next(iter(item.groups.get("kind", ())), ""),
        query=item.query,
        evidence=[[round(before / fps + start, 3), round(before / fps + end, 3)] for start, end in spans],
    )
