"""What the vision tower says of a video, whatever is asked about it: computed each time, or kept from the first.

Legend: N frames, n frames of a chunk, P patches, Dv vision width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FrameFeatures:
    """The patch features of a video, chunk by chunk; the vision tower computes a chunk whenever it is asked for.

    Args:
        vision_tower: uint8[n, H, W, 3] -> float[n, P, Dv].
        frames: uint8[N, H, W, 3], on any device; moved chunk by chunk.
    """

    def __init__(self, vision_tower: nn.Module, frames: Tensor) -> None:
        self.vision_tower = vision_tower
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def chunk(self, start: int, stop: int) -> Tensor:
        """float[n, P, Dv] of frames start..stop-1."""
        features: Tensor = self.vision_tower(self.frames[start:stop])
        return features


class KeptFeatures(FrameFeatures):
    """The same for a tower that does not train, kept in host memory as the tower gives them while there is room.

    A chunk for which there is no room is computed again each time.  One that is kept holds the same bits as a new one,
    as long as it is asked for with the same bounds.

    Args:
        vision_tower, frames: see :class:`FrameFeatures`.
        room: bytes that may be kept.
    """

    def __init__(self, vision_tower: nn.Module, frames: Tensor, room: int) -> None:
        super().__init__(vision_tower, frames)
        self.room = room
        self._kept: dict[tuple[int, int], tuple[Tensor, torch.device]] = {}

    @property
    def num_kept(self) -> int:
        """How many frames' features are kept."""
        return sum(stop - start for start, stop in self._kept)

    @torch.no_grad()
    def chunk(self, start: int, stop: int) -> Tensor:
        """float[n, P, Dv] of frames start..stop-1; not to be changed by the caller."""
        if (start, stop) in self._kept:
            features, device = self._kept[start, stop]
            return features.to(device)
        features = super().chunk(start, stop)
        if features.nbytes <= self.room:
            self.room -= features.nbytes
            self._kept[start, stop] = features.cpu(), features.device
        return features
