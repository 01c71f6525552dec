"""Small shards, as a user would make them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import webdataset as wds


def write_shard(file: Path, samples: list[tuple[str, list[dict[str, Any]], bytes | None]]) -> None:
    """A shard of (key, questions, video), written with webdataset."""
    with wds.TarWriter(str(file)) as writer:
        for key, questions, video in samples:
            annotation = {"questions": questions} | ({} if video is None else {"video": "mp4"})
            sample = {"__key__": key, "json": json.dumps(annotation).encode()}
            writer.write(sample if video is None else sample | {"mp4": video})


def draw_clip(step: int = 15) -> bytes:
    """Eight seconds of H.264, ever lighter by ``step``."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for i in range(16):
            picture = np.full((96, 128, 3), step * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
