"""A video is known again by its bytes and by how it is read, and then needs no decoding up to the selection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from vilamp.data import frame_identity as module
from vilamp.data.decode import VideoReader
from vilamp.data.frame_identity import frame_identity
from vilamp.data.frames import FrameSettings
from vilamp.decoders.auto import AutoDecoder
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.embedding_cache import EmbeddingCache
from vilamp.probe import FileRange, Probe, Source
from vilamp.samples import SkipSample, Video
from vilamp.testing.barcodes import write_video
from vilamp.video import FrameChunk, VideoDecoder

SETTINGS = FrameSettings(fps=1.0, max_frames=16, size=32)
CLIP, OTHER = (write_video(list(range(seconds)), Fraction(1, 1)) for seconds in (4, 5))


class Refusing(VideoDecoder):
    """Must not be asked."""

    name = "refusing"

    def decode(self, source: Source, probe: Probe, times: np.ndarray, size: int) -> Iterator[FrameChunk]:
        """Fail."""
        raise AssertionError("nothing was to be decoded")


def test_bytes_and_reading_make_the_identity_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = frame_identity(PyAVDecoder(), SETTINGS)(CLIP)
    assert frame_identity(PyAVDecoder(), replace(SETTINGS))(CLIP) == known
    (tmp_path / "x").write_bytes(b"before" + CLIP + b"behind")
    assert frame_identity(PyAVDecoder(), SETTINGS)(FileRange(str(tmp_path / "x"), 6, len(CLIP))) == known
    others = [
        replace(SETTINGS, **{name: value})
        for name, value in {
            "fps": 2.0, "max_frames": 3, "size": 48, "sampling": "iframes", "corrupt": "gap", "max_gaps": 0.5,
        }.items()
    ]  # fmt: skip
    found = [frame_identity(PyAVDecoder(), settings)(CLIP) for settings in others]
    found += [frame_identity(AutoDecoder(), SETTINGS)(CLIP), frame_identity(PyAVDecoder(), SETTINGS)(OTHER)]
    monkeypatch.setattr(module, "version", lambda package: "99")
    found.append(frame_identity(PyAVDecoder(), SETTINGS)(CLIP))
    assert len({known, *found}) == 1 + len(found)


def _kept(tmp_path: Path, video: Video) -> torch.Tensor:
    """Keep some embeddings of a video that was read, as the model does."""
    assert video.lookup is not None
    embeddings = torch.randn(len(video), 8, generator=torch.Generator().manual_seed(0))
    EmbeddingCache(tmp_path, "scorer").store(video.lookup.key, embeddings, video.timestamps)
    return embeddings


def test_a_video_is_found_under_any_name_and_by_another_reader(tmp_path: Path) -> None:
    def read(content: bytes, key: str, settings: FrameSettings = SETTINGS) -> Video:
        return VideoReader(PyAVDecoder(), settings, cache=EmbeddingCache(tmp_path, "scorer")).read(content, key)

    first = read(CLIP, "a")
    assert first.lookup is not None and first.lookup.outcome == "misses"
    embeddings = _kept(tmp_path, first)
    again = read(CLIP, "b")
    assert again.lookup is not None and torch.equal(again.lookup.embeddings, embeddings)
    assert torch.equal(again.frames, first.frames), "the vision tower needs them"
    for other in (read(OTHER, "a"), read(CLIP, "a", replace(SETTINGS, fps=0.5))):
        assert other.lookup is not None and other.lookup.outcome == "misses"
    assert VideoReader(PyAVDecoder(), SETTINGS).read(CLIP, "a").lookup is None


def test_without_need_of_frames_nothing_is_decoded(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, "scorer")
    reader = VideoReader(Refusing(), SETTINGS, cache=cache, needs_frames=False)
    with pytest.raises(AssertionError, match="nothing was to be decoded"):
        reader.read(CLIP, "clip")  # not there yet
    whole = VideoReader(PyAVDecoder(), SETTINGS).read(CLIP, "clip")
    key = frame_identity(Refusing(), SETTINGS)(CLIP)
    cache.store(key, torch.ones(4, 8), whole.timestamps)
    video = reader.read(CLIP, "clip")
    assert len(video) == 4 and video.frames.shape == (0, 32, 32, 3) and video.decoder == ""
    assert torch.equal(video.timestamps, whole.timestamps)
    cache.path(key).write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="nothing was to be decoded"):
        reader.read(CLIP, "clip")


def test_an_entry_of_other_frames_is_stale(tmp_path: Path) -> None:
    reader = VideoReader(PyAVDecoder(), SETTINGS, cache=EmbeddingCache(tmp_path, "scorer"))
    video = reader.read(CLIP, "clip")
    assert video.lookup is not None
    EmbeddingCache(tmp_path, "scorer").store(video.lookup.key, torch.ones(3, 8), video.timestamps[:3])
    stale = reader.read(CLIP, "clip").lookup
    assert stale is not None and stale.outcome == "rebuilt" and stale.embeddings is None


def test_a_video_that_cannot_be_read_is_skipped_as_without_a_cache(tmp_path: Path) -> None:
    reader = VideoReader(PyAVDecoder(), SETTINGS, cache=EmbeddingCache(tmp_path, "scorer"))
    with pytest.raises(SkipSample, match="decode"):
        reader.read(b"noise", "clip")
    assert not list(tmp_path.iterdir())
