"""A projector and a language model that answer questions about a few frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tiny_base.album import KEYFRAME_GRID, Album
from tiny_base.lesson import Lesson
from vilamp.interfaces import Selection
from vilamp.mergers.uniform import UniformMerger
from vilamp.models.language_model import LanguageModel
from vilamp.models.projector import Projector
from vilamp.models.scorer import ClipScorer
from vilamp.models.text import PromptEncoder
from vilamp.models.video_lm import VideoLM
from vilamp.models.vision_tower import SiglipTower
from vilamp.samples import EncodedQuestion
from vilamp.selectors.uniform import UniformSelector


def build_language_side(root: Path, quick: bool, seed: int) -> None:
    """A trained projector and language model over the finished tower."""
    torch.manual_seed(seed)
    new_language_model(root)
    train_language_side(root, quick, np.random.default_rng([seed, 2]))


def new_language_model(root: Path) -> None:
    """An untrained language model."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(root / "language_model")
    language = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        initializer_range=0.08,  # 0.02 is for models ten times as wide: too small here for attention to get started
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(language).save_pretrained(root / "language_model")


def load_base(root: Path, projector: Path | None) -> tuple[VideoLM, PromptEncoder]:
    """All parts, in the composition that the run uses."""
    tower, language = SiglipTower(str(root / "vision_tower"), -1), LanguageModel(str(root / "language_model"))
    model = VideoLM(
        scorer=ClipScorer(str(root / "scorer")),
        selector=UniformSelector(),
        vision_tower=tower,
        merger=UniformMerger(),
        projector=Projector(
            None if projector is None else str(projector),
            KEYFRAME_GRID,
            vision_dim=tower.dim,
            language_dim=language.dim,
        ),
        language_model=language,
        num_keyframes=1,
        chunk_size=64,
    )
    encode = PromptEncoder(str(root / "scorer"), str(root / "language_model"), 32, 256)
    return model, encode


def answer_whole(model: VideoLM, tokens: Tensor, questions: list[EncodedQuestion]) -> tuple[Tensor, Tensor]:
    """:func:`answer` for questions that see all tokens of all their frames, float[B * frames, T, D]."""
    return answer(model, [*tokens.unflatten(0, (len(questions), -1)).flatten(1, 2)], questions)


def answer(model: VideoLM, visuals: list[Tensor], questions: list[EncodedQuestion]) -> tuple[Tensor, Tensor]:
    """(loss, exact bool[B]) for questions and what each of them sees, float[., D]."""
    steps = Selection(torch.empty(0, dtype=torch.int64))  # a step is 1 here, whatever is a keyframe
    joined = [model.join(q.input_ids, q.labels, visual, steps) for q, visual in zip(questions, visuals, strict=True)]
    result = model.language_model.answer_loss([one.embeddings for one in joined], [one.labels for one in joined])
    return result.total / result.tokens, result.exact


def train_language_side(root: Path, quick: bool, rng: np.random.Generator) -> None:
    """Three lessons: to read words that stand for pictures; to see pictures as those words; to do both together.

    Straight from pictures the model learns at once what kind of word is wanted and hardly ever which frame is meant.
    """
    model, encode = load_base(root, None)
    album = Album(model.vision_tower, 1280 if quick else 6400, rng)
    projector, language = model.projector, model.language_model
    model.train()
    count = 3 if quick else 1600
    lesson = Lesson("words", [language], 3e-3, count)
    for step in range(count):
        rows, questions = album.ask(1 + 6 * step // count, 64, encode, rng)
        embeddings = language.lm.get_input_embeddings().weight
        loss, exact = answer_whole(model, album.in_words(rows.flatten(), encode, embeddings), questions)
        lesson.step(loss, accuracy=exact.float().mean().item())
    count = 3 if quick else 600
    lesson = Lesson("pictures", [projector.keyframe], 3e-3, count)
    embeddings = embeddings.detach()
    scale = embeddings.std()
    for _ in range(count):
        rows = torch.from_numpy(rng.integers(0, len(album.needles), 128))
        wanted = album.in_words(rows, encode, embeddings)
        lesson.step(F.mse_loss(projector.project_keyframes(album.patches[rows]) / scale, wanted / scale))
    count = 3 if quick else 1200
    lesson = Lesson("both", [projector.keyframe, language], 5e-4, count)
    for step in range(count):
        rows, questions = album.ask(3 + 6 * step // count, 32, encode, rng)
        loss, exact = answer_whole(model, projector.project_keyframes(album.patches[rows.flatten()]), questions)
        lesson.step(loss, accuracy=exact.float().mean().item())
    assert projector.merged is not None
    projector.merged.load_state_dict(projector.keyframe.state_dict())
    save(model, root)


TEMPERATURES = (0.01, 0.1)
"""Least and greatest temperature of the weights in the last lesson; DFM's alpha is the least."""


def teach_merged_tokens(root: Path, quick: bool, seed: int) -> None:
    """The last lesson: to do so among up to 128 frames, most of which are one token.

    That is a mean of the frame's patches, weighted by their relevance to the question: sharply, so that the token is
    what looks most like the answer also where there is none, up to smoothly, mixed with what lies around.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 5])
    model, encode = load_base(root, root / "projector.safetensors")
    album = Album(model.vision_tower, 1280 if quick else 6400, rng)
    model.train()
    count = 3 if quick else 1600
    lesson = Lesson("merged tokens", [model.projector, model.language_model], 1e-3, count)
    for step in range(count):
        longest = 32 + round(96 * max(0.0, 1 - (1 - step / count) / 0.3))  # long ones, which take time, at the end
        rows, whole, questions = album.ask_of_many(int(rng.integers(8, longest + 1)), 32, encode, rng)
        temperature = float(np.exp(rng.uniform(*np.log(TEMPERATURES))))
        loss, exact = answer(model, see(model, album.patches[rows], whole, questions, temperature), questions)
        lesson.step(loss, accuracy=exact.float().mean().item())
    save(model, root)


def see(
    model: VideoLM, patches: Tensor, whole: Tensor, questions: list[EncodedQuestion], temperature: float
) -> list[Tensor]:
    """The visual sequence float[V, D] of each question: all tokens of the frames that are whole, one of each other.

    Args:
        model: its scorer and projector are used.
        patches: float[B, n, P, Dv], of the frames of each question.
        whole: bool[B, n].
        questions: B of them.
        temperature: of the weights.
    """
    queries = model.scorer.embed_queries([question.query_ids for question in questions])
    relevance = torch.einsum("bd,bnpd->bnp", queries, F.normalize(patches, dim=-1))  # Eq. 6
    merged = torch.einsum("bnp,bnpd->bnd", (relevance / temperature).softmax(-1), patches)
    keyframes = iter(model.projector.project_keyframes(patches[whole]))
    others = iter(model.projector.project_merged(merged[~whole][:, None]))
    return [torch.cat([next(keyframes if kept else others) for kept in row]) for row in whole.tolist()]


def save(model: VideoLM, root: Path) -> None:
    """Write language model and projector."""
    model.language_model.lm.save_pretrained(root / "language_model")
    weights = {name: value.contiguous() for name, value in model.projector.state_dict().items()}
    save_file(weights, root / "projector.safetensors", metadata={"format": "pt"})
