"""torchcodec, which decodes with the system's FFmpeg libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vilamp.errors import ConfigError
from vilamp.probe import KEYFRAME_UNITS, Probe, Source, open_source, translated
from vilamp.video import CHUNK, FrameChunk, UnsuitedError, VideoDecoder

CONTAINERS = ("mov", "matroska")
"""Transport streams and AVI files have no index, and torchcodec refuses them or miscounts."""


class TorchCodecDecoder(VideoDecoder):
    """Scans the file for its frames first, and gives out those that the container has at the wanted times.

    Raises:
        ConfigError: torchcodec is not installed, or finds no FFmpeg libraries.
    """

    name = "torchcodec"

    def __init__(self) -> None:
        _decoders()

    def decode(self, source: Source, probe: Probe, times: np.ndarray, size: int) -> Iterator[FrameChunk]:
        """See :meth:`VideoDecoder.decode`."""
        torch, decoders, transforms = _decoders()
        require_suited(probe)
        indices = probe.on_display(times)
        with translated(RuntimeError, ValueError, IndexError, MemoryError), open_source(source) as file:
            reader = decoders.VideoDecoder(
                file,
                seek_mode="exact",
                num_ffmpeg_threads=1,
                dimension_order="NHWC",
                transforms=[transforms.Resize((size, size))],
            )
            if reader.metadata.num_frames != len(probe.pts):
                raise UnsuitedError(f"torchcodec counts {reader.metadata.num_frames} of {len(probe.pts)} frames")
            begin = reader.metadata.begin_stream_seconds or 0.0
            for first in range(0, len(indices), CHUNK):
                part = slice(first, first + CHUNK)
                batch = reader.get_frames_at(torch.as_tensor(indices[part]))
                got = batch.pts_seconds.numpy() - begin
                ok = np.isclose(got, probe.starts[indices[part]], rtol=0, atol=1e-4)
                yield FrameChunk(batch.data.numpy(), times[part], probe.starts[indices[part]], ok, self.name)


def require_suited(probe: Probe) -> None:
    """Raise UnsuitedError for what torchcodec is known to read wrongly, or not at all."""
    if probe.container.split(",")[0] not in CONTAINERS or probe.damage:
        raise UnsuitedError(f"torchcodec is not trusted with {probe.container}, or with a damaged file")
    if probe.declared not in (0, len(probe.pts)):
        raise UnsuitedError(f"torchcodec fails where {len(probe.pts)} of {probe.declared} frames are shown")
    if probe.codec in KEYFRAME_UNITS and len(probe.entries) < len(probe.keyframes) and not probe.open_gop:
        # It begins at keyframes from which a picture only recovers after a while (intra refresh).
        raise UnsuitedError("torchcodec is not trusted with keyframes that refer to frames before them")


def _decoders() -> tuple[Any, Any, Any]:
    try:
        import torch
        from torchcodec import decoders, transforms
    except (ImportError, RuntimeError, OSError) as error:  # the libraries of FFmpeg are looked for on import
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(
            "decoder=torchcodec needs pip install 'vilamp-lightning[torchcodec]' and the system's FFmpeg libraries "
            f"(version 4 or newer); importing it failed: {first}"
        ) from error
    return torch, decoders, transforms
