"""The small model of the package and videos for it, as the benchmarks of the visual path and of training use them."""

from __future__ import annotations

import torch

from vilamp.build import build_model, build_optim
from vilamp.config import compose
from vilamp.models.video_lm import VideoLM
from vilamp.samples import IGNORED, VIDEO_TOKEN, Batch, EncodedQuestion, Question, Video

START, END = 3, 0
"""Of a text, in the small tokenizer."""
ANSWER_TOKENS = 3


def small_model(*overrides: str, trains: bool = True) -> VideoLM:
    """``model=tiny`` with the usual parts frozen, or with all of them.

    Args:
        *overrides: as on the command line.
        trains: False freezes everything.
    """
    cfg = compose("train", ["selector.fill_up=true", *overrides])
    torch.manual_seed(cfg.seed)
    model = build_model(cfg)
    build_optim(cfg).freeze(model)
    return model if trains else model.eval().requires_grad_(False)


def rolling_video(num_frames: int, size: int = 96) -> Video:
    """A noise picture that moves by a pixel from frame to frame.

    The frames uint8[N, size, size, 3] are overlapping views of one row of bytes, so that no length of a video takes
    memory of its own.
    """
    step, row = 3, 3 * size
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(0, 256, (size * row + step * num_frames,), dtype=torch.uint8, generator=generator)
    frames = numbers.as_strided((num_frames, size, size, 3), (step, row, 3, 1))
    return Video("rolling", frames, torch.arange(num_frames, dtype=torch.float64))


def one_question(video: Video, seed: int = 0) -> Batch:
    """A batch of one video and one question about it, of random words."""
    words = torch.randint(4, 400, (12,), generator=torch.Generator().manual_seed(seed))
    ids = torch.cat([torch.tensor([VIDEO_TOKEN]), words, torch.tensor([END])])
    labels = torch.full_like(ids, IGNORED)
    labels[-ANSWER_TOKENS:] = ids[-ANSWER_TOKENS:]
    query = torch.cat([torch.tensor([START]), words, torch.tensor([END])])
    source = Question("random words", "random words", "random words")
    return Batch([video], [EncodedQuestion(f"{video.key}/0", source, query, ids, labels, seed)], [0])
