"""What a pass over videos up to the selection of keyframes costs, with and without kept embeddings.

    python benchmarks/embedding_cache.py

A pass reads the validation split of the default needle set (``data=needle``), 64 videos, and selects keyframes for all
questions of each video with ``selector=differential``, one video after the other in one process; decoding has its
limits, and so a process of its own, as in a run.  The ways:

- ``encode``: without a cache.  Decode, embed, select.
- ``first``: into an empty cache.  The same, and every embedding is written.
- ``second``: nothing is decoded or embedded.  Hash the file, read the embeddings, select.
- ``epoch``: the same for training, where the vision tower needs the frames: they are decoded.

All must select the same frames, and ``second`` and ``epoch`` must not ask the scorer; else it is an error.  The goal is
``encode`` / ``second`` of at least 5.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from harness import Column, alternate, options, report

from vilamp.build import build_data, build_encoder, build_model
from vilamp.config import compose
from vilamp.data.dataset import Collate, VideoDataset
from vilamp.data.module import VideoDataModule
from vilamp.data.order import Place
from vilamp.frame_file import FrameFile
from vilamp.models.video_lm import VideoLM
from vilamp.samples import EncodeQuestion

REPEATS, QUICK_REPEATS = 3, 1
QUICK = [
    f"data.generate.{setting}"
    for setting in (
        "train_videos=2",
        "val_videos=2",
        "min_seconds=10",
        "max_seconds=16",
        "events=2",
        "look_alikes=1",
        "questions_per_video=4",
    )
]

COLUMNS = (
    Column("videos", "videos"),
    Column("frames", "frames", ","),
    Column("questions", "questions", ","),
    Column("encode_s", "encode, s", ".2f"),
    Column("first_s", "first, s", ".2f"),
    Column("second_s", "second, s", ".2f"),
    Column("epoch_s", "epoch, s", ".2f"),
    Column("first_over_encode", "first / encode", ".2f"),
    Column("encode_over_second", "encode / second", ".1f"),
    Column("encode_over_epoch", "encode / epoch", ".2f"),
    Column("bytes_per_frame", "bytes a frame", ".0f"),
)


class Pass:
    """Passes over a data set.

    Args:
        overrides: of the configuration.
        folder: for the cache.
    """

    def __init__(self, overrides: Sequence[str], folder: Path) -> None:
        cfg = compose("train", [*overrides, f"data.embedding_cache={folder}"])
        torch.manual_seed(cfg.seed)
        self.folder = folder
        self.model: VideoLM = build_model(cfg).eval()
        self.encode: EncodeQuestion = build_encoder(cfg, self.model)
        self.data: VideoDataModule = build_data(cfg, self.encode, self.model.scorer)
        self.data.prepare_data()
        self.data.setup()
        self.cache = self.data.embeddings
        self.frames = self.questions = self.embedded = 0
        embed = self.model.scorer.embed_frames

        def counted(frames: torch.Tensor | FrameFile) -> torch.Tensor:
            self.embedded += len(frames)
            return embed(frames)

        self.model.scorer.embed_frames = counted  # type: ignore[method-assign]

    @torch.no_grad()
    def run(self, *, cached: bool, needs_frames: bool, anew: bool = False) -> list[list[int]]:
        """The keyframes of every question.

        Args:
            cached: use the cache.
            needs_frames: as in :class:`~vilamp.data.decode.VideoReader`.
            anew: begin with an empty cache.
        """
        if anew:
            shutil.rmtree(self.folder, ignore_errors=True)
        reader = self.data.reader
        reader.cache = self.model.embedding_cache = self.cache if cached else None
        reader.needs_frames = needs_frames
        dataset = VideoDataset(self.data.indices["val"].samples, reader, seed=0)
        collate = Collate(self.encode)
        self.frames = self.questions = self.embedded = 0
        keyframes = []
        for number in range(len(dataset)):
            batch = collate([dataset[Place(number, 0)]])
            selections, _ = self.model.select(batch.videos[0], batch.questions)
            keyframes += [selection.keyframes.tolist() for selection in selections]
            self.frames += len(batch.videos[0])
            self.questions += len(batch.questions)
        return keyframes

    def ways(self) -> dict[str, Callable[[], None]]:
        """The calls to compare; the last two need the cache that ``first`` fills.

        Each raises ValueError where it selects other frames than the one before it, or embeds more frames than it says.
        """
        before: list[list[list[int]]] = []

        def checked(embeds: bool, **how: bool) -> Callable[[], None]:
            def call() -> None:
                before.append(self.run(**how))
                if before[0] != before[-1]:
                    raise ValueError(f"other frames were selected with {how}")
                if self.embedded != (self.frames if embeds else 0):
                    raise ValueError(f"{self.embedded} of {self.frames} frames were embedded with {how}")

            return call

        return {
            "encode": checked(True, cached=False, needs_frames=True),
            "first": checked(True, cached=True, needs_frames=True, anew=True),
            "second": checked(False, cached=True, needs_frames=False),
            "epoch": checked(False, cached=True, needs_frames=True),
        }


def measure(overrides: Sequence[str], repeats: int) -> dict[str, str | int | float]:
    """The row of one data set.

    Raises:
        ValueError: the ways do not select the same frames, or the scorer was asked where it should not.
    """
    with tempfile.TemporaryDirectory() as temporary:
        passes = Pass(overrides, Path(temporary, "embeddings"))
        seconds = alternate(passes.ways(), repeats)
        kept = sum(file.stat().st_size for file in passes.folder.rglob("*.safetensors"))
    return {
        "videos": len(passes.data.indices["val"].samples),
        "frames": passes.frames,
        "questions": passes.questions,
        **{f"{way}_s": value for way, value in seconds.items()},
        "first_over_encode": seconds["first"] / seconds["encode"],
        "encode_over_second": seconds["encode"] / seconds["second"],
        "encode_over_epoch": seconds["encode"] / seconds["epoch"],
        "bytes_per_frame": kept / passes.frames,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line."""
    wanted = options(__doc__ or "", argv)
    if wanted.quick:
        with tempfile.TemporaryDirectory() as folder:
            small = [*QUICK, f"paths.data_dir={folder}", "data.generate.progress=false"]
            row = measure(small, QUICK_REPEATS)
    else:
        row = measure([], REPEATS)
    report("A pass over the needle set up to the selection", [row], COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
