"""Frames as decoded -> pixels as a pretrained encoder expects them, on the encoder's device."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import cached_file

from vilamp.errors import ConfigError
from vilamp.models.pretrained import reading


class FramePreprocessor(nn.Module):
    """Resize and normalise a chunk of frames, following the model's own ``preprocessor_config.json``.

    The image processors of Transformers do the same one picture at a time on the host; a stream of thousands of frames
    wants it batched and where the encoder is.  The picture is resized to the encoder's square input, not cropped:
    cropping would hide the sides of a wide video from the scorer.

    Args:
        path: hub id or local folder of the pretrained encoder.
        size: height and width of the encoder's input, in pixels.
        setting: where ``path`` was set, for messages.

    Raises:
        ConfigError: the folder has no readable ``preprocessor_config.json``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, path: str, size: int, setting: str) -> None:
        super().__init__()
        with reading(path, setting):
            file = cached_file(path, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
        if file is None:
            raise ConfigError(
                f"{setting}={path} has no preprocessor_config.json, which holds the encoder's pixel mean and std"
            )
        settings = json.loads(Path(file).read_text())
        self.size = size
        self.settings = settings
        """What the file holds."""
        self.register_buffer("mean", torch.tensor(settings["image_mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings["image_std"]).view(1, 3, 1, 1), persistent=False)

    def save(self, folder: Path) -> None:
        """Write the same ``preprocessor_config.json`` into a folder."""
        (folder / "preprocessor_config.json").write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")

    def forward(self, frames: Tensor) -> Tensor:
        """uint8[n, H, W, 3] -> float[n, 3, size, size], normalised."""
        pixels = frames.to(self.mean.device).permute(0, 3, 1, 2) / 255  # bytes become floats in one step
        if pixels.shape[-2:] != (self.size, self.size):
            shape = (self.size, self.size)
            pixels = F.interpolate(pixels, shape, mode="bicubic", antialias=True, align_corners=False).clamp_(0, 1)
        return (pixels - self.mean).div_(self.std)
