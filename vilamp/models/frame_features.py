"""What the vision tower says of videos, whatever is asked about them: computed each time, or kept from the first.

Legend: N frames of a video, n frames of a chunk, P patches, Dv vision width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vilamp.frame_file import FrameFile


@dataclass(frozen=True)
class Span:
    """Frames start..stop-1 of one of several videos."""

    video: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def cut(lengths: Sequence[int], chunk_size: int) -> Iterator[list[Span]]:
    """The frames of some videos, one video after the other, in chunks of ``chunk_size``; only the last may be smaller.

    Args:
        lengths: N of each video; one of length 0 is in no chunk.
        chunk_size: frames.
    """
    spans: list[Span] = []
    room = chunk_size
    for video, length in enumerate(lengths):
        start = 0
        while start < length:
            stop = min(start + room, length)
            spans.append(Span(video, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield spans
                spans, room = [], chunk_size
    if spans:
        yield spans


class FrameFeatures:
    """The patch features of videos, chunk by chunk; the vision tower computes a chunk whenever it is asked for.

    Args:
        vision_tower: uint8[n, H, W, 3] -> float[n, P, Dv].
        videos: uint8[N, H, W, 3] each, on any device or in a file; moved chunk by chunk.

    Raises:
        ValueError: frames of the videos differ in size, so that they do not fit into one chunk.
    """

    def __init__(self, vision_tower: nn.Module, videos: Sequence[Tensor | FrameFile]) -> None:
        sizes = sorted({tuple(frames.shape[1:3]) for frames in videos})
        if len(sizes) > 1:
            raise ValueError(f"the videos of a batch must have frames of one height and width, got {sizes}")
        self.vision_tower = vision_tower
        self.videos = videos

    @property
    def lengths(self) -> list[int]:
        """N of each video."""
        return [len(frames) for frames in self.videos]

    def chunk(self, spans: Sequence[Span]) -> Tensor:
        """float[n, P, Dv] of the frames of all spans, n of them together."""
        frames = [self.videos[span.video][span.start : span.stop] for span in spans]
        # Most chunks of long videos are a part of one, and need no copy.
        features: Tensor = self.vision_tower(frames[0] if len(frames) == 1 else torch.cat(frames))
        return features


class KeptFeatures(FrameFeatures):
    """The same for a tower that does not train, kept in host memory as the tower gives them while there is room.

    A chunk for which there is no room is computed again each time.  One that is kept holds the same bits as a new one,
    as long as it is asked for with the same spans.

    Args:
        vision_tower, videos: see :class:`FrameFeatures`.
        room: bytes that may be kept.
    """

    def __init__(self, vision_tower: nn.Module, videos: Sequence[Tensor | FrameFile], room: int) -> None:
        super().__init__(vision_tower, videos)
        self.room = room
        self._kept: dict[tuple[Span, ...], tuple[Tensor, torch.device]] = {}

    @property
    def num_kept(self) -> int:
        """How many frames' features are kept."""
        return sum(len(span) for spans in self._kept for span in spans)

    @torch.no_grad()
    def chunk(self, spans: Sequence[Span]) -> Tensor:
        """float[n, P, Dv] of the frames of all spans; not to be changed by the caller."""
        place = tuple(spans)
        if place in self._kept:
            features, device = self._kept[place]
            return features.to(device)
        features = super().chunk(spans)
        if features.nbytes <= self.room:
            self.room -= features.nbytes
            self._kept[place] = features.cpu(), features.device
        return features
