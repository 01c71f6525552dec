"""Many videos that differ in a few frames, in one pass over what they have in common.

Each is a *haystack* with a *needle* in it: all frames of a short clip, put in front of one of the haystack's frames.
The haystack goes through the vision tower once for all of them, chunk by chunk, whatever their lengths; each goes its
own way through merger and projector, and nothing but its visual sequence is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vilamp.models.visual_stream import Course, View, VisualStream


@dataclass(frozen=True)
class Splice:
    """One question about one such video.

    Attributes:
        view: its keyframes count the frames of the whole.
        needle: uint8[m, H, W, 3].
        before: frames of the haystack in front of the needle.
        length: frames of the whole; the first ``length - m`` of the haystack are in it.
    """

    view: View
    needle: Tensor
    before: int
    length: int

    @property
    def from_haystack(self) -> int:
        """How many frames of the haystack are in it."""
        return self.length - len(self.needle)


@dataclass
class _Way:
    splice: Splice
    course: Course
    behind_needle: bool = False


class SplicedStream:
    """Takes some splices through one haystack.

    Args:
        stream: what each goes through.
        splices: these.
    """

    def __init__(self, stream: VisualStream, splices: Sequence[Splice]) -> None:
        self.stream = stream
        self.done = 0
        self._ways = [_Way(splice, Course.of(splice.view)) for splice in splices]

    @property
    def wanted(self) -> int:
        """How many frames of the haystack are needed in all."""
        return max(way.splice.from_haystack for way in self._ways)

    @torch.no_grad()
    def feed(self, frames: Tensor) -> None:
        """Go on by the next frames of the haystack, uint8[n, H, W, 3], n of any size."""
        for chunk in frames.split(self.stream.chunk_size):
            patches = self.stream.patches(chunk)
            for number, way in enumerate(self._ways):
                self._advance(number, patches[: max(way.splice.from_haystack - self.done, 0)])
            self.done += len(chunk)

    def _advance(self, number: int, patches: Tensor) -> None:
        """The next frames of one of them, with the needle in between where this is its place."""
        way = self._ways[number]
        at = way.splice.before - self.done
        if way.behind_needle or at > len(patches):
            self._follow(way, patches)
            return
        way.behind_needle = True
        self._follow(way, patches[:at])
        for chunk in way.splice.needle.split(self.stream.chunk_size):
            self._follow(way, self.stream.patches(chunk))
        self._follow(way, patches[at:])

    def _follow(self, way: _Way, patches: Tensor) -> None:
        if len(patches):
            self.stream.follow(patches, way.course)

    def end(self) -> list[Tensor]:
        """The visual sequence of each, float[V, D].

        Raises:
            ValueError: the haystack was not fed as far as one of them needs it.
        """
        for way in self._ways:
            if way.course.done != way.splice.length:
                raise ValueError(f"{way.course.done} of {way.splice.length} frames were seen")
        return [self.stream.end(way.course) for way in self._ways]
