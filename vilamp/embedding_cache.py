"""Frame embeddings of the scorer, kept on disk from one pass over the videos to the next.

One safetensors file for each video, scorer and way of reading (format: ``data/README.md``).  It gets its name when it
is whole, so any number of processes may read and write the same folder without a lock: what two of them write under one
name says the same.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vilamp.disk import open_plain
from vilamp.errors import ConfigError

log = logging.getLogger(__name__)

SETTING = "data.embedding_cache"
FORMAT = "vilamp-embeddings/1"
"""Another number makes all that was kept before stale."""
MAX_BYTES = 1 << 30
"""Of an entry, which makes five days at one frame a second and 512 numbers a frame; a larger one is not read."""


@dataclass(frozen=True)
class Lookup:
    """What the cache has for a video.

    Attributes:
        key: of the entry, whether there is one or not.
        embeddings: float32[N, Ds], unit rows, on the host; None where there is no entry that can be used.
        timestamps: float64[N], seconds from the first frame; likewise.
        problem: why an entry that is there cannot be used; else empty.
    """

    key: str
    embeddings: Tensor | None = None
    timestamps: Tensor | None = None
    problem: str = ""

    @property
    def outcome(self) -> str:
        """What it counts as: ``hits``, ``misses``, or ``rebuilt`` for an entry that is made anew."""
        if self.embeddings is not None:
            return "hits"
        return "rebuilt" if self.problem else "misses"

    def agreeing_with(self, timestamps: Tensor) -> Lookup:
        """Itself, unless the frames that were decoded are not on display at the times of the entry."""
        if self.timestamps is None or torch.equal(self.timestamps, timestamps):
            return self
        return Lookup(self.key, problem=f"the entry {self.key} is of {len(self.timestamps)} frames at other times")


class EmbeddingCache:
    """Reads and writes the entries of one scorer.

    Args:
        folder: where they lie; made when the first is written.
        scorer: digest of all that decides an embedding.

    Attributes:
        unstored: embeddings that could not be kept.

    Raises:
        ConfigError: ``folder`` is a file.
    """

    def __init__(self, folder: str | Path, scorer: str) -> None:
        self.folder = Path(folder)
        self.scorer = scorer
        self.unstored = 0
        self._full = False
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"{SETTING}={folder} is a file; set it to a folder, or to null to keep nothing")

    def path(self, key: str) -> Path:
        """The file of an entry."""
        return self.folder / self.scorer / key[:2] / f"{key}.safetensors"

    def find(self, key: str) -> Lookup:
        """Look for an entry; one that is damaged or stale is a problem of the lookup, never an error."""
        path = self.path(key)
        try:
            # Not mapped into memory: on a network's disk a file that another machine replaces takes its pages along.
            with open_plain(path) as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES} bytes")
            return Lookup(key, *self._checked(load(content), _metadata(content), key))
        except FileNotFoundError:
            return Lookup(key)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            return Lookup(key, problem=f"{path} cannot be used: {error}")

    def _checked(self, found: dict[str, Tensor], about: dict[str, str], key: str) -> tuple[Tensor, Tensor]:
        expected = self._about(key)
        wrong = [f"{name} is {about.get(name)!r}, not {value!r}" for name, value in expected.items()
                 if about.get(name) != value]  # fmt: skip
        if wrong:
            raise ValueError("; ".join(wrong))
        shapes = {name: (tensor.dtype, tensor.dim()) for name, tensor in found.items()}
        if shapes != {"embeddings": (torch.float32, 2), "timestamps": (torch.float64, 1)}:
            raise ValueError(f"it holds {shapes}")
        embeddings, timestamps = found["embeddings"], found["timestamps"]
        if about.get("checksum") != _checksum(embeddings, timestamps):
            raise ValueError("its bytes are not those that were written")
        return embeddings, timestamps

    def _about(self, key: str) -> dict[str, str]:
        return {"format": FORMAT, "scorer": self.scorer, "key": key}

    def store(self, key: str, embeddings: Tensor, timestamps: Tensor) -> None:
        """Keep the embeddings of a video, in place of what may be there.

        A disk that takes no more, or a folder that cannot be written, costs no run: that is said once, nothing more is
        written, and what was not kept is counted.  A folder in the place of an entry costs this entry only.

        Args:
            key: as in :attr:`Lookup.key`.
            embeddings: float32[N, Ds], on any device.
            timestamps: float64[N].
        """
        if self._full:
            self.unstored += 1
            return
        tensors = {"embeddings": embeddings.detach().cpu().contiguous(), "timestamps": timestamps.contiguous()}
        path = self.path(key)
        partial = path.with_name(f"{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                # Not flushed to the disk: what a power failure leaves half is noticed when it is read.
                partial.write_bytes(save(tensors, self._about(key) | {"checksum": _checksum(*tensors.values())}))
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        except IsADirectoryError as error:
            self.unstored += 1
            log.warning("%s: an entry cannot be kept, cache/unstored counts it: %s", SETTING, error)
        except OSError as error:
            self.unstored += 1
            self._full = True
            log.warning(
                "%s: no more embeddings are kept in this run, cache/unstored counts them: %s", SETTING, error
            )  # fmt: skip


def _metadata(content: bytes) -> dict[str, str]:
    """The texts in the header of a safetensors file, which its own reader of bytes leaves out."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__") or {}


def _checksum(embeddings: Tensor, timestamps: Tensor) -> str:
    """128 bits of XXH3 in hex over shape and bytes: for damage, not for malice."""
    digest = xxhash.xxh3_128(str(tuple(embeddings.shape)).encode())
    digest.update(embeddings.numpy().data)
    digest.update(timestamps.numpy().data)
    return digest.hexdigest()
