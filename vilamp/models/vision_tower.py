"""The vision tower: frames -> patch features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from vilamp.errors import ConfigError
from vilamp.models.preprocess import FramePreprocessor
from vilamp.models.pretrained import build_empty, load_pretrained, reading

SETTING = "model.vision_tower.path"


class SiglipTower(nn.Module):
    """A SigLIP vision transformer, read at a hidden layer.

    Layers behind ``hidden_layer`` and the pooling head are neither loaded nor run.

    Args:
        path: hub id or local folder of a ``SiglipModel`` or ``SiglipVisionModel``.
        hidden_layer: which layer's output to take, counted from the end: -1 the last, -2 the one before (the layer that
            LLaVA-OneVision and ViLaMP read).  The final layer norm is not applied.
        weights: runtime; False leaves the parameters on the meta device.
        architecture: runtime; used instead of what the ``config.json`` at ``path`` holds.
        preprocessor: runtime; the folder of the ``preprocessor_config.json``, if it is not ``path``.

    Raises:
        ConfigError: the tower has no such layer.
    """

    def __init__(
        self,
        path: str,
        hidden_layer: int = -2,
        *,
        weights: bool = True,
        architecture: dict[str, Any] | None = None,
        preprocessor: str | None = None,
    ) -> None:
        super().__init__()
        with reading(path, SETTING):
            own = SiglipVisionConfig.from_pretrained
            config = own(path) if architecture is None else SiglipVisionConfig(**architecture)
        kept = config.num_hidden_layers + 1 + hidden_layer
        if not 1 <= kept <= config.num_hidden_layers:
            raise ConfigError(
                f"model.vision_tower.hidden_layer={hidden_layer} does not exist: there are {config.num_hidden_layers} "
                f"layers; set a number from {-config.num_hidden_layers} to -1"
            )
        config.num_hidden_layers = kept
        config.vision_use_head = False
        self.siglip = (load_pretrained if weights else build_empty)(SiglipVisionModel, path, SETTING, config=config)
        # Nothing reads the last norm; left trainable it would be a parameter without a gradient.
        self.siglip.post_layernorm = nn.Identity()
        self.preprocess = FramePreprocessor(preprocessor or path, config.image_size, SETTING)
        self.dim: int = config.hidden_size
        """Dv, the width of a patch feature."""
        self.grid: int = config.image_size // config.patch_size
        """Patches along one side of a frame: P = grid * grid."""

    def save(self, folder: Path) -> None:
        """Write the layers that are read for ``SiglipVisionModel.from_pretrained``; its ``hidden_layer`` is then -1."""
        own = self.siglip.post_layernorm
        # Transformers wants one in the file; nothing reads it.
        self.siglip.post_layernorm = nn.LayerNorm(self.dim)
        try:
            self.siglip.save_pretrained(folder)
        finally:
            self.siglip.post_layernorm = own
        self.preprocess.save(folder)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8[n, H, W, 3] -> float[n, P, Dv], row by row from the top left."""
        dtype = self.siglip.embeddings.patch_embedding.weight.dtype
        pixels = self.preprocess(frames).to(dtype)  # [n, 3, S, S]
        hidden = self.siglip.embeddings(pixels)  # [n, P, Dv]
        return self.siglip.encoder(inputs_embeds=hidden).last_hidden_state
