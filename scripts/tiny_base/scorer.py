"""A trained CLIP of a few layers; its vision side starts from the trained tower."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast, SiglipVisionModel

from tiny_base.lesson import Lesson
from tiny_base.pictures import GRID, all_questions, draw_frames
from vilamp.data.needle_scene import SIZE, Needle, new_needles
from vilamp.models.scorer import ClipScorer
from vilamp.models.vision_tower import SiglipTower

TEMPERATURE = 0.1
"""Of the patches' cosines: ten times DFM's, with which hardly a patch but the best would be learned from."""


def build_scorer(root: Path, steps: int, seed: int) -> None:
    """A trained CLIP of a few layers; its vision side starts from the trained tower."""
    torch.manual_seed(seed)
    new_scorer(root)
    train_scorer(root, steps, np.random.default_rng([seed, 1]))


def start_from_tower(clip: CLIPModel, tower: SiglipVisionModel) -> None:
    """Copy what the two vision transformers have in common: patch embedding, positions (the patches'), layers."""
    vision = clip.vision_model
    with torch.no_grad():
        vision.embeddings.patch_embedding.weight.copy_(tower.embeddings.patch_embedding.weight)
        vision.embeddings.position_embedding.weight[1:] = tower.embeddings.position_embedding.weight
        vision.embeddings.position_embedding.weight[1:] += tower.embeddings.patch_embedding.bias
    vision.encoder.load_state_dict(tower.encoder.state_dict())


def new_scorer(root: Path) -> None:
    """An untrained CLIP of a few layers."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(root / "scorer")
    shape = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4, "projection_dim": 64}
    config = CLIPConfig(
        text_config=shape
        | {
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 2,
            "max_position_embeddings": 32,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config=shape
        | {"hidden_act": "gelu_pytorch_tanh", "num_hidden_layers": 3, "image_size": SIZE, "patch_size": SIZE // GRID},
        projection_dim=64,
    )
    CLIPModel(config).save_pretrained(root / "scorer")
    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SIZE).save_pretrained(root / "scorer")


def train_scorer(root: Path, steps: int, rng: np.random.Generator) -> None:
    """Match questions with frames, and with the tower's patches.

    A frame or a patch fits every question that names a shape or a colour in it.  Places do not count, since CLIP hardly
    sees them either: where one is named, the language model has to look.  The patches are those of the tower as it is,
    so that a question can be compared with them (ViLaMP, Eq. 6), as those of one pair of image and text model can.
    """
    scorer = ClipScorer(str(root / "scorer"))
    clip = scorer.clip.requires_grad_(True).train()
    start_from_tower(clip, SiglipVisionModel.from_pretrained(root / "vision_tower"))
    tower = SiglipTower(str(root / "vision_tower"), -1).eval()
    questions = Questions(root)
    bias = torch.nn.Parameter(torch.tensor(-4.0))
    lesson = Lesson("scorer", [clip, torch.nn.ParameterList([bias])], 1e-3, steps)
    for _ in range(steps):
        needles = [n if rng.random() < 0.75 else None for _ in range(12) for n in new_needles(8, 1, rng)]
        frames, covered = draw_frames(needles, rng)
        fits = questions.fit(needles)
        images = F.normalize(clip.get_image_features(pixel_values=scorer.preprocess(frames)).pooler_output, dim=-1)
        texts = F.normalize(clip.get_text_features(input_ids=questions.ids).pooler_output, dim=-1)
        logits = images @ texts.T * clip.logit_scale.exp().clamp(max=30) + bias  # [frames, questions]
        with torch.no_grad():
            patches = F.normalize(tower(frames), dim=-1)
        whole, named = whole_frames(logits, fits)
        lesson.step(whole + best_patches(texts @ patches.mT, fits[..., None] * covered[:, None]), named=named)
    clip.save_pretrained(root / "scorer")


class Questions:
    """Every question there is, the eight values that a template can name in a row."""

    def __init__(self, root: Path) -> None:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(root / "scorer")
        asked = sorted(all_questions(), key=lambda q: q[2].replace(q[1], ""))
        self.values = [value for _, value, _ in asked]
        encoded = [torch.tensor(tokenizer(text).input_ids) for _, _, text in asked]
        self.ids = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True, padding_value=tokenizer.eos_token_id)

    def fit(self, needles: Sequence[Needle | None]) -> Tensor:
        """bool[n, Q]: whether a needle is what a question names; a haystack alone is nothing of that."""
        return torch.tensor(
            [[n is not None and value in (n.shape, n.colour) for value in self.values] for n in needles]
        )


def whole_frames(logits: Tensor, fits: Tensor) -> tuple[Tensor, float]:
    """The loss of whole frames: does a question fit, and of the values that one template can name, which.

    A haystack fits nothing.

    Args:
        logits: float[n, Q].
        fits: bool[n, Q].

    Returns:
        The loss, and the share of cases in which the value that fits comes first.
    """
    choices, right = (part[fits.any(1)].unflatten(1, (-1, 8)).flatten(0, 1) for part in (logits, fits.int()))
    which = F.cross_entropy(choices, right.argmax(1))
    named = (choices.argmax(1) == right.argmax(1)).float().mean().item()
    return which + F.binary_cross_entropy_with_logits(logits, fits.float()), named


def best_patches(relevance: Tensor, share: Tensor) -> Tensor:
    """The loss of a question that is not nearer to the patches that it is about than to those of any other frame.

    Args:
        relevance: float[n, Q, P], the R of Eq. 6.
        share: of each patch that is what the question is about.
    """
    logits = relevance / TEMPERATURE
    well = share > 0.3  # what is covered less is left undecided
    others = logits.masked_fill(share > 0, -torch.inf).transpose(0, 1).flatten(1).logsumexp(1)  # [Q]
    return F.softplus((others[:, None] - logits)[well]).mean()


@torch.no_grad()
def share_found(root: Path, rng: np.random.Generator) -> float:
    """The share of frames and questions that fit them in which the most relevant patch shows what is asked about."""
    tower, scorer = SiglipTower(str(root / "vision_tower"), -1).eval(), ClipScorer(str(root / "scorer")).eval()
    questions = Questions(root)
    needles = [needle for _ in range(64) for needle in new_needles(8, 1, rng)]
    frames, covered = draw_frames([*needles], rng)
    fits = questions.fit(needles)
    relevance = scorer.embed_queries([*questions.ids]) @ F.normalize(tower(frames), dim=-1).mT  # [n, Q, P]
    found = covered.gather(1, relevance.argmax(2)) > 0.3  # [n, Q]
    return found[fits].float().mean().item()
