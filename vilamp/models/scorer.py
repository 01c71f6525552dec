"""The scorer: one dual encoder that puts frames and questions into the same space (ViLaMP, Eq. 2-3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import xxhash
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPModel

from vilamp.frame_file import FrameFile
from vilamp.models.preprocess import FramePreprocessor
from vilamp.models.pretrained import build_empty, load_pretrained

SETTING = "model.scorer.path"


class ClipScorer(nn.Module):
    """A frozen CLIP: unit embeddings of frames and of questions.

    Args:
        path: hub id or local folder of a ``CLIPModel``.
        chunk_size: frames embedded at a time.
        weights: runtime; False leaves the parameters on the meta device.
    """

    def __init__(self, path: str, chunk_size: int = 64, *, weights: bool = True) -> None:
        super().__init__()
        self.clip = (load_pretrained if weights else build_empty)(CLIPModel, path, SETTING).requires_grad_(False)
        self.preprocess = FramePreprocessor(path, self.clip.config.vision_config.image_size, SETTING)
        self.chunk_size = chunk_size
        self.tokenizer = path
        """Hub id or local folder of the tokenizer whose ids this model reads."""
        self.dim: int = self.clip.config.projection_dim
        """Ds, the width of the shared space."""
        self.context: int = self.clip.config.text_config.max_position_embeddings
        """The longest query, in tokens."""

    def save(self, folder: Path) -> None:
        """Write it for ``CLIPModel.from_pretrained``, without its tokenizer."""
        self.clip.save_pretrained(folder)
        self.preprocess.save(folder)

    @torch.no_grad()
    def embed_frames(self, frames: Tensor | FrameFile) -> Tensor:
        """uint8[N, H, W, 3], in memory or in a file -> float[N, Ds], unit rows."""
        with self._full_precision():
            parts = [
                self._embed(frames[start : start + self.chunk_size]) for start in range(0, len(frames), self.chunk_size)
            ]
        return torch.cat(parts).float()

    def _embed(self, chunk: Tensor) -> Tensor:
        return F.normalize(self.clip.get_image_features(pixel_values=self.preprocess(chunk)).pooler_output, dim=-1)

    def digest(self) -> str:
        """128 bits of XXH3 in hex over all that decides a frame's embedding: weights, architecture, preprocessing."""
        config = self.clip.config.vision_config.to_dict()
        architecture = {name: value for name, value in config.items() if name != "transformers_version"}
        told = [f"{type(self).__module__}.{type(self).__qualname__}", architecture, self.preprocess.size]
        digest = xxhash.xxh3_128(json.dumps(told, sort_keys=True, default=str).encode())
        weights = {
            **self.clip.vision_model.state_dict(),
            **self.clip.visual_projection.state_dict(prefix="projection."),
        }
        for name, tensor in sorted({**weights, **dict(self.preprocess.named_buffers())}.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def _full_precision(self) -> torch.autocast:
        """Within this nothing is cast: which frames are selected must not depend on the run's precision."""
        return torch.autocast(self.preprocess.mean.device.type, enabled=False)

    def embed_queries(self, query_ids: Sequence[Tensor]) -> Tensor:
        """Q sequences int64[Tq] that end in the end-of-text token -> float[Q, Ds], unit rows."""
        return F.normalize(self.encode_queries(query_ids), dim=-1)

    @torch.no_grad()
    def encode_queries(self, query_ids: Sequence[Tensor]) -> Tensor:
        """The same before normalisation."""
        # CLIP attends to the left and reads the first end-of-text token, so that what pads to the right is never seen.
        end = self.clip.config.text_config.eos_token_id
        ids = pad_sequence([q.to(self.preprocess.mean.device) for q in query_ids], batch_first=True, padding_value=end)
        with self._full_precision():
            return self.clip.get_text_features(input_ids=ids).pooler_output.float()
