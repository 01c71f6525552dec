"""What a second question about a video costs beside the first one.

    python benchmarks/second_question.py

The first question pays for watching the video: the scorer and the vision tower see every frame.  A session
(:mod:`vilamp.session`) keeps what they say, so that a second question only selects, merges and answers.  The promise is
a twentieth of the first one's cost.

Seconds are processor time of the small model of the package (``model=tiny``, K = 4) on a video like those of the needle
data, 96 pixels at 2 frames a second, which is as cheap to decode as videos get; the first question is shown with and
without decoding.  Operations are those of ViLaMP's sizes
(``model=vilamp_7b``, K = 32, 196 tokens a keyframe, 128 tokens of text), counted while the real modules run on tensors
without numbers, up to the first token of the answer; what a selector does is not counted, and is next to nothing.  Both
tables also show the share of the language model, which reads the whole visual sequence for every question; that of the
large model compares all else, too.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from harness import Column, Row, alternate, options, report
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import vilamp
from vilamp.config import compose
from vilamp.data.decode import VideoReader
from vilamp.data.needle_scene import new_haystack
from vilamp.data.needle_video import encode_mp4
from vilamp.interfaces import Selection
from vilamp.memory.kernels import fused_kernels
from vilamp.memory.plan import empty_model
from vilamp.memory.tracker import StorageTracker
from vilamp.mergers import _in_blocks
from vilamp.models.frame_features import FrameFeatures, KeptFeatures
from vilamp.models.precision import held_in
from vilamp.models.video_lm import VideoLM
from vilamp.models.visual_stream import View, VisualStream
from vilamp.samples import IGNORED, VIDEO_TOKEN, Batch
from vilamp.session import Session

OPENED, FIRST, SECOND, LANGUAGE = "opened", "first", "second", "language model"
QUESTIONS = ("what colour is the circle?", "where is the star?")
SIZES, REPEATS, FPS = (600,), 3, 2
LARGE_SIZES = (600, 2_000, 8_000, 10_000, 25_000)
QUICK_SIZES, QUICK_REPEATS = (40,), 1
KEYFRAMES, TOKENS_PER_KEYFRAME, TEXT_TOKENS = 32, 196, 128
ROOM = 2**40
"""Bytes of features that may be kept: no limit here."""
CHUNK = 10_000
"""Frames that are counted at a time, and merged in one block: so few operations are quick to count.

How many they are changes a count by less than a millionth.
"""

TIME_COLUMNS = (
    Column("n", "frames", ","),
    Column("tokens", "visual tokens", ","),
    Column("opened_s", "first question, s", ".3f"),
    Column("first_s", "without decoding, s", ".3f"),
    Column("second_s", "second, s", ".4f"),
    Column("language_s", "of it the language model, s", ".4f"),
    Column("opened_over_second", "first / second", ".1f"),
    Column("first_over_second", "without decoding", ".1f"),
)
FLOP_COLUMNS = (
    Column("n", "frames", ","),
    Column("tokens", "visual tokens", ","),
    Column("first_flop", "first question, TFLOP", ".1f", 1e-12),
    Column("second_flop", "second, TFLOP", ".2f", 1e-12),
    Column("language_flop", "of it the language model, TFLOP", ".2f", 1e-12),
    Column("seen_flop", "of it all else, TFLOP", ".2f", 1e-12),
    Column("first_over_second", "first / second", ".1f"),
    Column("seen_first_over_second", "all else: first / second", ",.0f"),
)


def make_video(folder: Path, size: int) -> Path:
    """A video of so many seconds, which is so many frames to the model."""
    scene = new_haystack(np.random.default_rng(0))
    file = folder / f"{size}.mp4"
    file.write_bytes(encode_mp4([scene.frame(i / FPS) for i in range(FPS * size)], FPS))
    return file


def time_row(file: Path, size: int, repeats: int) -> Row:
    """The seconds of the small model on a video of so many frames."""
    loaded = vilamp.load(max_frames=size, device="cpu")
    reader = VideoReader(loaded.reader.decoder, loaded.reader.settings)  # in this process, whose time is taken
    loaded = dataclasses.replace(loaded, reader=reader)
    session = loaded.open(file)
    video = session.video
    asked = session.ask(QUESTIONS[1])
    model = loaded.model
    with torch.no_grad():
        (visual,), (selection,) = model.see(Batch([video], [asked.question], [0]), session.features)
        prompt = asked.question.input_ids[asked.question.labels == IGNORED]
        joined = model.join(prompt, prompt, visual, selection)
    end = loaded.encode.tokenizer.eos_token_id
    ways: dict[str, Callable[[], object]] = {
        OPENED: lambda: loaded.open(file).ask(QUESTIONS[0]),
        FIRST: lambda: Session(loaded, video).ask(QUESTIONS[0]),
        SECOND: lambda: session.ask(QUESTIONS[1]),
        LANGUAGE: lambda: model.language_model.answer(joined.embeddings, loaded.max_new_tokens, end, joined.positions),
    }
    seconds = alternate(ways, repeats, time.process_time)
    return {
        "n": size,
        "tokens": asked.visual_tokens,
        "opened_s": seconds[OPENED],
        "first_s": seconds[FIRST],
        "second_s": seconds[SECOND],
        "language_s": seconds[LANGUAGE],
        "opened_over_second": seconds[OPENED] / seconds[SECOND],
        "first_over_second": seconds[FIRST] / seconds[SECOND],
    }


def flop_row(size: int) -> Row:
    """The operations of the large model at one length."""
    settings = {"frames": size, "tokens_per_keyframe": TOKENS_PER_KEYFRAME, "model.chunk_size": CHUNK}
    cfg = compose("memory", [f"{key}={value}" for key, value in settings.items()])
    model, _ = empty_model(cfg)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    _make_fake(model, fake)
    with fake:
        frames = torch.empty((size, cfg.model.frame_size, cfg.model.frame_size, 3), dtype=torch.uint8)
    features = KeptFeatures(model.vision_tower, [frames], ROOM)
    one_block = mock.patch.object(_in_blocks, "FORWARD_NUMBERS", ROOM)
    with torch.no_grad(), fused_kernels(gpu=False), one_block, StorageTracker(fake):
        watched = _flops(lambda: model.scorer.embed_frames(frames))
        first = _Question(model, features)
        first_seen, first_read = watched + first.see(), first.answer()
        second = _Question(model, features)
        seen, read = second.see(), second.answer()
    return {
        "n": size,
        "tokens": second.tokens,
        "first_flop": first_seen + first_read,
        "second_flop": seen + read,
        "language_flop": read,
        "seen_flop": seen,
        "first_over_second": (first_seen + first_read) / (seen + read),
        "seen_first_over_second": first_seen / seen,
    }


class _Question:
    """One question about a video of which the keyframes are known."""

    def __init__(self, model: VideoLM, features: FrameFeatures) -> None:
        self.model, self.features = model, features
        self.sequence: Tensor | None = None
        self.tokens = 0

    def see(self) -> int:
        """Operations of embedding the question, and of the visual path."""
        return _flops(self._see)

    def _see(self) -> None:
        model, (total,) = self.model, self.features.lengths
        ids = torch.arange(32).clamp_max(model.scorer.context - 1)
        ids[-1] = model.scorer.clip.config.text_config.eos_token_id
        query = model.scorer.embed_queries([ids])[0]
        keyframes = torch.arange(min(KEYFRAMES, total)) * (total - 1) // max(min(KEYFRAMES, total) - 1, 1)  # evenly
        stream = VisualStream(model.vision_tower, model.merger, model.projector, model.chunk_size, model.anchor)
        (visual,) = stream(self.features, [View(keyframes, query, 0)])
        self.tokens = len(visual)
        text = torch.zeros(TEXT_TOKENS + 1, dtype=torch.int64)
        text[0] = VIDEO_TOKEN
        self.sequence = model.join(text, text, visual, Selection(keyframes)).embeddings

    def answer(self) -> int:
        """Operations of the language model up to the first token."""
        sequence, lm = self.sequence, self.model.language_model.lm
        assert sequence is not None
        return _flops(lambda: lm(inputs_embeds=sequence[None], use_cache=True, logits_to_keep=1))


def _flops(run: Callable[[], object]) -> int:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={kernel: _attention}) as counter:
        run()
    return counter.get_total_flops()


def _attention(query: Sequence[int], key: Sequence[int], *_: object, **__: object) -> int:
    """Both products of attention, as torch counts them for other kernels: the causal half is not taken off."""
    batch, heads, length, width = query
    return 4 * batch * heads * length * key[2] * width


def _make_fake(model: VideoLM, fake: FakeTensorMode) -> None:
    """Give every parameter a tensor without numbers."""
    dtypes = {id(p): held_in(name, p, torch.bfloat16) for name, p in model.named_parameters()}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                with fake:
                    empty = torch.empty(parameter.shape, dtype=dtypes[id(parameter)])
                module._parameters[name] = nn.Parameter(empty, requires_grad=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for every length, first seconds, then operations."""
    wanted = options(__doc__ or "", argv)
    sizes, repeats = (QUICK_SIZES, QUICK_REPEATS) if wanted.quick else (SIZES, REPEATS)
    with tempfile.TemporaryDirectory() as folder:
        rows = [time_row(make_video(Path(folder), size), size, repeats) for size in sizes]
    report("Second question: model=tiny, K = 4", rows, TIME_COLUMNS, wanted.json)
    large = [flop_row(size) for size in (QUICK_SIZES if wanted.quick else LARGE_SIZES)]
    report("Second question: model=vilamp_7b, K = 32", large, FLOP_COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
