"""Answers questions about needles: a haystack is read, scored and encoded for many of them together, window by window.

Of a haystack no more than two windows of frames are in memory.  It is read once to embed all its frames, from which the
keyframes of each case are selected, unless an embedding cache knows it; and once to encode it for each
:data:`~vilamp.evaluation.videos.CASES_AT_ONCE` cases.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from vilamp.benchmark import Item, Spliced, Stretch
from vilamp.data.decode import VideoReader
from vilamp.embedding_cache import Lookup
from vilamp.evaluation.answers import Answer
from vilamp.evaluation.asking import Asker, Seen
from vilamp.evaluation.videos import Group, Haystack, source_of
from vilamp.interfaces import Selection
from vilamp.models.spliced_stream import Splice, SplicedStream
from vilamp.models.video_lm import VideoLM
from vilamp.models.visual_stream import View, VisualStream
from vilamp.probe import MAX_FRAMES
from vilamp.samples import EncodedQuestion, SkipSample, Video
from vilamp.training.showing import Look, Looked, told_weights

WINDOW = 512
"""Frames that are decoded at a time."""
T = TypeVar("T")


@dataclass(frozen=True)
class _Case:
    """One question, and its needle.

    Attributes:
        needle: with its frames.
        embeddings: float[m, Ds], of its frames.
        video: the whole as a question sees it, without frames.
    """

    item: Item
    spliced: Spliced
    needle: Video
    embeddings: Tensor
    video: Video


class Splicer:
    """Puts needles into haystacks.

    Args:
        model: scores, selects and merges.
        reader: how videos are read; the number of their frames is not limited here.
    """

    def __init__(self, model: VideoLM, reader: VideoReader) -> None:
        self.model = model
        self.reader = replace(reader, settings=replace(reader.settings, max_frames=MAX_FRAMES))
        self.finder = replace(self.reader, needs_frames=False)
        self._embedded: tuple[Haystack, Tensor] | None = None  # the last haystack, whose next cases come next

    def answers(self, asker: Asker, group: Group) -> list[Answer]:
        """One answer for each question about a haystack; their ``video`` is the needle's name."""
        answers = self._of_each(group.items, partial(self._ask, asker))
        return [
            replace(
                _unasked(item, answer) if isinstance(answer, SkipSample) else answer,
                video=_spliced(item).needle.file.path.name,
            )
            for item, answer in zip(group.items, answers, strict=True)
        ]

    def look(self, asker: Asker, items: Sequence[Item]) -> list[Looked | SkipSample]:
        """A look at each question about a haystack, or why it cannot be had; the haystack is encoded once for all."""
        return self._of_each(items, partial(self._look, asker))

    def _of_each(self, items: Sequence[Item], of_all: Callable[[Sequence[_Case]], list[T]]) -> list[T | SkipSample]:
        """What ``of_all`` gives for each question, or why its needle or the haystack cannot be had."""
        needles: dict[Stretch, tuple[Video, Tensor] | SkipSample] = {}
        for item in items:
            needle = _spliced(item).needle
            if needle not in needles:
                needles[needle] = self._read_needle(needle)
        found = [_case(item, needles[_spliced(item).needle]) for item in items]
        cases = [case for case in found if isinstance(case, _Case)]
        try:
            done = iter(of_all(cases) if cases else [])
        except SkipSample as skip:  # the haystack
            return [skip if isinstance(case, _Case) else case for case in found]
        return [next(done) if isinstance(case, _Case) else case for case in found]

    def _read_needle(self, needle: Stretch) -> tuple[Video, Tensor] | SkipSample:
        """A needle and its embeddings, or why it cannot be had."""
        try:
            video = self.reader.read(source_of(needle.file), needle.file.path.name, part=(0, needle.frames))
        except SkipSample as skip:
            return skip
        return video, self.model.embed(video)

    def _ask(self, asker: Asker, cases: Sequence[_Case]) -> list[Answer]:
        haystack = cases[0].spliced.haystack
        embeddings = self._embed(haystack)
        by_key = {case.item.key: case for case in cases}

        def see(encoded: Sequence[EncodedQuestion]) -> Seen:
            return self._see(haystack, embeddings, [by_key[question.key] for question in encoded], encoded)

        return asker.about([case.item for case in cases], [case.video for case in cases], see)

    @torch.no_grad()
    def _embed(self, haystack: Haystack) -> Tensor:
        """float[N, Ds], of all frames of a haystack."""
        if self._embedded is None or self._embedded[0] != haystack:
            found = [self.model.embed(window) for window in _windows(self.finder, haystack)]
            self._embedded = haystack, torch.cat(found)
        return self._embedded[1]

    @torch.no_grad()
    def _see(
        self,
        haystack: Haystack,
        embeddings: Tensor,
        cases: Sequence[_Case],
        encoded: Sequence[EncodedQuestion],
    ) -> Seen:
        splices, selections = [], []
        for case, question in zip(cases, encoded, strict=True):
            splice, selection = self._splice(case, question, embeddings)
            splices.append(splice)
            selections.append(selection)
        stream = SplicedStream(self.model.stream(), splices)
        for _ in self._through(stream, haystack):
            pass
        return list(stream.end()), list(selections)

    def _splice(self, case: _Case, question: EncodedQuestion, embeddings: Tensor) -> tuple[Splice, Selection]:
        before, rest = case.spliced.before, case.spliced.length - len(case.needle)
        whole = torch.cat([embeddings[:before], case.embeddings, embeddings[before:rest]])
        known = Lookup(case.video.key, whole, case.video.timestamps)
        (selection,), queries = self.model.select(replace(case.video, lookup=known), [question])
        view = View(selection.keyframes.cpu(), queries[0], question.seed)
        return Splice(view, case.needle.frames[:], before, case.spliced.length), selection

    def _through(self, stream: SplicedStream, haystack: Haystack) -> Iterator[tuple[int, Video]]:
        """Feed a haystack as far as it is needed; each window when it is fed, with the number of its first frame."""
        for window in _windows(self.reader, haystack):
            first = stream.done
            stream.feed(window.frames[: stream.wanted - first])
            yield first, window
            if stream.done == stream.wanted:
                return

    @torch.no_grad()
    def _look(self, asker: Asker, cases: Sequence[_Case]) -> list[Looked]:
        haystack = _head(cases[0].spliced.haystack, max(case.spliced.length - len(case.needle) for case in cases))
        embeddings = self._embed(haystack)
        looks, splices = [], []
        for case in cases:
            question = asker.encoded(case.item, case.video)
            splice, selection = self._splice(case, question, embeddings)
            looks.append(Look(question, case.video.timestamps, selection, None))
            splices.append(splice)
        pictures = [_Pictures(look, splice) for look, splice in zip(looks, splices, strict=True)]
        stream = _Watched(self.model.stream(), splices)
        for first, window in self._through(stream, haystack):
            for one in pictures:
                one.take(first, window)
        weights = [torch.cat(told) if told else None for told in stream.told]
        return [
            (replace(look, weights=its), one.frames) for look, its, one in zip(looks, weights, pictures, strict=True)
        ]


class _Watched(SplicedStream):
    """Also tells what the merged tokens of each splice attend to, see :func:`vilamp.training.showing.told_weights`."""

    def __init__(self, stream: VisualStream, splices: Sequence[Splice]) -> None:
        super().__init__(stream, splices)
        self.told: list[list[Tensor]] = [[] for _ in splices]

    def _advance(self, number: int, patches: Tensor) -> None:
        with told_weights(self.stream.merger) as told:
            super()._advance(number, patches)
        self.told[number] += told


class _Pictures:
    """Those frames of a splice that are shown of a look at it, by their number: ``frames``."""

    def __init__(self, look: Look, splice: Splice) -> None:
        before, length = splice.before, len(splice.needle)
        shown = {*look.keyframes, *look.merged}
        self.frames = {i: splice.needle[i - before] for i in shown if before <= i < before + length}
        self._in_haystack = {i if i < before else i - length: i for i in shown - self.frames.keys()}

    def take(self, first: int, window: Video) -> None:
        """Those of a window of the haystack, the first frame of which has this number in it."""
        for place in self._in_haystack.keys() & set(range(first, first + len(window))):
            self.frames[self._in_haystack[place]] = window.frames[place - first].clone()  # a view keeps the window


def _head(haystack: Haystack, frames: int) -> Haystack:
    """So many of its first frames."""
    starts = itertools.accumulate((stretch.frames for stretch in haystack), initial=0)
    left = [(stretch, frames - start) for stretch, start in zip(haystack, starts, strict=False)]
    return tuple(replace(stretch, frames=min(stretch.frames, rest)) for stretch, rest in left if rest > 0)


def _case(item: Item, needle: tuple[Video, Tensor] | SkipSample) -> _Case | SkipSample:
    """The question with its needle, or why there is none."""
    if isinstance(needle, SkipSample):
        return needle
    spliced, (video, embeddings) = _spliced(item), needle
    times = torch.arange(spliced.length, dtype=torch.float64) / spliced.fps
    return _Case(item, spliced, video, embeddings, Video(item.key, video.frames[:0], times, gaps=video.gaps))


def _spliced(item: Item) -> Spliced:
    assert isinstance(item.video, Spliced)
    return item.video


def _unasked(item: Item, skip: SkipSample) -> Answer:
    return Answer(item.key, None, reason=skip.reason, detail=skip.detail)


def _windows(reader: VideoReader, haystack: Haystack) -> Iterator[Video]:
    """A haystack, window by window; the next one is read while one is worked on."""
    jobs: list[Callable[[], Video]] = []
    for stretch in haystack:
        source, key = source_of(stretch.file), stretch.file.path.name
        for start in range(0, stretch.frames, WINDOW):
            part = (start, min(start + WINDOW, stretch.frames))
            jobs.append(partial(reader.read, source, key, part=part))
    first, *others = jobs
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(first)
        for job in others:
            window = upcoming.result()
            upcoming = pool.submit(job)
            yield window
        yield upcoming.result()
