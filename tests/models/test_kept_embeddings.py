"""The model takes the embeddings that a video brings, and keeps those that it computes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vilamp.build import build_data, build_model
from vilamp.config import compose
from vilamp.embedding_cache import EmbeddingCache
from vilamp.errors import ConfigError
from vilamp.locations import asset
from vilamp.models.scorer import ClipScorer
from vilamp.models.video_lm import VideoLM
from vilamp.samples import VIDEO_TOKEN, Batch, EncodedQuestion, Question, Video

KEY = "ab" * 16


@pytest.fixture(scope="module")
def model() -> VideoLM:
    return build_model(compose("train", ["num_keyframes=3", "model.chunk_size=4"])).eval()


@pytest.fixture
def batch() -> Batch:
    """One video, three questions."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (11, 96, 96, 3), dtype=torch.uint8, generator=generator)
    questions = [
        EncodedQuestion(f"v/{seed}", Question("q", "a", "q"), torch.tensor([3, 20 + seed, 0]),
                        torch.tensor([VIDEO_TOKEN, 7]), torch.tensor([-100, 7]), seed)
        for seed in range(3)
    ]  # fmt: skip
    return Batch([Video("v", frames, torch.arange(11.0, dtype=torch.float64))], questions, [0, 0, 0])


def _looked_up(batch: Batch, cache: EmbeddingCache) -> Batch:
    return replace(batch, videos=[replace(batch.videos[0], lookup=cache.find(KEY))])


def test_a_video_is_embedded_once_for_all_questions_and_passes(
    model: VideoLM, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, embedded = EmbeddingCache(tmp_path, "scorer"), []
    embed = model.scorer.embed_frames
    monkeypatch.setattr(model.scorer, "embed_frames", lambda frames: embedded.append(len(frames)) or embed(frames))
    monkeypatch.setattr(model, "embedding_cache", cache)
    without, chosen = model.see(batch)
    first, _ = model.see(_looked_up(batch, cache))
    assert embedded == [11, 11]
    again, kept = model.see(_looked_up(batch, cache))
    assert embedded == [11, 11], "the second pass asks nothing of the scorer"
    for plain, one, two in zip(without, first, again, strict=True):
        assert torch.equal(plain, one) and torch.equal(plain, two)
    for one, two in zip(chosen, kept, strict=True):
        assert torch.equal(one.keyframes, two.keyframes) and torch.equal(one.relevance, two.relevance)


def test_without_a_lookup_nothing_is_kept(
    model: VideoLM, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "embedding_cache", EmbeddingCache(tmp_path, "scorer"))
    model.see(batch)
    assert not list(tmp_path.iterdir())


def _change(folder: Path, name: str) -> str:
    """The digest of the scorer in a folder after one number of a tensor was changed."""
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return ClipScorer(str(folder)).digest()


def test_a_scorer_is_known_by_what_decides_a_frames_embedding(tmp_path: Path) -> None:
    known = ClipScorer(str(asset("tiny/scorer"))).digest()
    folder = tmp_path / "elsewhere"
    shutil.copytree(asset("tiny/scorer"), folder)
    assert ClipScorer(str(folder), chunk_size=3).digest() == known
    assert _change(folder, "text_model.final_layer_norm.weight") == known, "frames do not see it"
    assert _change(folder, "visual_projection.weight") != known
    settings = folder / "preprocessor_config.json"
    shutil.copy(asset("tiny/scorer/model.safetensors"), folder)
    assert ClipScorer(str(folder)).digest() == known
    settings.write_text(settings.read_text().replace("0.48145466", "0.5"))
    assert ClipScorer(str(folder)).digest() != known


def test_data_without_a_scorer_has_no_cache(tmp_path: Path) -> None:
    cfg = compose("train", [f"data.embedding_cache={tmp_path / 'kept'}", f"paths.data_dir={tmp_path}"])
    encode: Any = None
    with pytest.raises(ConfigError, match=r"data\.embedding_cache=.*data\.embedding_cache=null"):
        build_data(cfg, encode)
    assert build_data(compose("train"), encode).embeddings is None, "off unless asked for"
