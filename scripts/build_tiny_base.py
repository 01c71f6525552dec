"""Build ``vilamp/assets/tiny``: the small pretrained parts that the default run starts from.

    python scripts/build_tiny_base.py            # about 15 minutes on 2 cores; writes the folder and its README

What LLaVA-OneVision is to ViLaMP, this is to ``model=tiny``: a scorer that matches questions to frames, a vision tower,
a projector and a language model that answer questions about a few frames, of which some are one token each.  It has
never seen a video: its time, its compression and the merger are left to the run.
"""

from __future__ import annotations

import argparse
import io
import itertools
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from vilamp.data.needle_scene import (
    COLOURS,
    KINDS,
    PLACES,
    SHAPES,
    SIZE,
    Needle,
    ask,
    draw_needle,
    new_haystack,
    new_needles,
)
from vilamp.mergers.uniform import UniformMerger
from vilamp.models.language_model import LanguageModel
from vilamp.models.projector import Projector
from vilamp.models.scorer import ClipScorer
from vilamp.models.text import PromptEncoder
from vilamp.models.video_lm import VideoLM
from vilamp.models.vision_tower import SiglipTower
from vilamp.samples import EncodedQuestion, Question
from vilamp.selectors.uniform import UniformSelector

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GRID = 8
"""Patches along one side of a frame."""
KEYFRAME_GRID = 4
console = Console()


def all_questions() -> list[tuple[str, str, str]]:
    """(kind, named value, text) of every question there is, by asking until nothing new comes."""
    found: dict[tuple[str, str, str], None] = {}
    rng = np.random.default_rng(0)
    for shape, colour in zip(SHAPES, COLOURS, strict=True):
        for kind, place, _ in itertools.product(KINDS, PLACES, range(16)):
            text, _ = ask(Needle(shape, colour, place), kind, rng)
            found[kind, colour if kind == "shape" else shape, text] = None
    return list(found)


# ---------------------------------------------------------------------------------------------------------------- text


def build_tokenizers(root: Path) -> None:
    """One byte-level BPE for both text towers: any text can be read, the task's words are one token each."""
    words = [*SHAPES, *COLOURS, *PLACES, *(text for _, _, text in all_questions()), "user", "assistant", "yes", "no"]
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|startoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(words * 4, trainer)
    language = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    language.chat_template = CHAT_TEMPLATE
    language.save_pretrained(root / "language_model")
    bpe.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[(token, bpe.token_to_id(token)) for token in ("<|startoftext|>", "<|endoftext|>")],
    )
    scorer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    scorer.save_pretrained(root / "scorer")


# -------------------------------------------------------------------------------------------------------------- frames


def compress(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frame after a lossy codec, since that is how frames of videos come."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=int(rng.integers(40, 96)))
    return np.asarray(Image.open(buffer))


def draw_frames(needles: list[Needle | None], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw each needle in a haystack, or a haystack alone for None.  Eight frames share a scene.

    Returns:
        uint8[n, SIZE, SIZE, 3]; float[n, GRID * GRID], the share of each patch that its needle covers.
    """
    frames, covered = [], []
    for i, needle in enumerate(needles):
        if i % 8 == 0:
            haystack = new_haystack(rng)
        plain = frame = haystack.frame(float(rng.uniform(0, 60)))
        if needle is not None:
            frame = draw_needle(frame, needle, tuple(rng.uniform(-5, 5, 2)), float(rng.uniform(0.8, 1.15)))
        drawn = (frame != plain).any(-1).reshape(GRID, SIZE // GRID, GRID, SIZE // GRID)
        frames.append(compress(frame, rng))
        covered.append(drawn.mean(axis=(1, 3), dtype=np.float32).ravel())
    return torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(covered))


def cosine(step: int, steps: int, warm_up: int = 50) -> float:
    """The factor of the learning rate at a step."""
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))


# --------------------------------------------------------------------------------------------------------------- tower


def build_tower(root: Path, steps: int, seed: int) -> None:
    """A vision tower that knows what there is to see."""
    torch.manual_seed(seed)
    new_tower(root)
    train_tower(root, steps, np.random.default_rng([seed, 3]))


def new_tower(root: Path) -> None:
    """An untrained vision tower."""
    tower = SiglipVisionConfig(
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=SIZE // GRID,
    )
    SiglipVisionModel(tower).save_pretrained(root / "vision_tower")
    half = [0.5, 0.5, 0.5]
    processor = SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=half, image_std=half)
    processor.save_pretrained(root / "vision_tower")


def train_tower(root: Path, steps: int, rng: np.random.Generator) -> None:
    """Name shape, colour and place of the needle at every patch that it covers, and nothing at every other patch.

    So a patch says all about what it is part of, which is what a question that names one property and asks for another
    has to find in one place.
    """
    tower = SiglipTower(str(root / "vision_tower"), -1).train()
    values = {"shape": list(SHAPES), "colour": list(COLOURS), "place": list(PLACES)}
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(tower.dim, 1 + len(known)) for name, known in values.items()})
    norm = torch.nn.LayerNorm(tower.dim)
    parameters = [*tower.parameters(), *heads.parameters(), *norm.parameters()]
    peak = 2e-3
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.01)
    for step in range(steps):
        needles = [needle for _ in range(12) for needle in new_needles(8, 1, rng)]
        frames, covered = draw_frames([*needles], rng)
        is_needle, is_clear = covered > 0.3, covered == 0  # what lies between is left undecided
        patches = norm(tower(frames))
        losses, named = [], {}
        for name, known in values.items():
            logits = heads[name](patches)
            right = torch.tensor([1 + known.index(getattr(needle, name)) for needle in needles])
            on_needle, wanted = logits[is_needle], right[:, None].expand_as(is_needle)[is_needle]
            losses.append(F.cross_entropy(on_needle, wanted))
            losses.append(F.cross_entropy(logits[is_clear], torch.zeros(int(is_clear.sum()), dtype=torch.int64)))
            named[name] = (on_needle.argmax(1) == wanted).float().mean().item()
        optimizer.param_groups[0]["lr"] = peak * cosine(step, steps)
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 99:
            console.print(f"tower {step + 1}: " + ", ".join(f"{name} {share:.3f}" for name, share in named.items()))
    tower.siglip.post_layernorm = torch.nn.LayerNorm(tower.dim)  # Transformers expects one in the file
    tower.siglip.save_pretrained(root / "vision_tower")


# -------------------------------------------------------------------------------------------------------------- scorer


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
    """Match frames and questions: a frame fits every question that names a shape or a colour in it.

    Places do not count, since CLIP hardly sees them either: where one is named, the language model has to look.
    """
    scorer = ClipScorer(str(root / "scorer"))
    clip = scorer.clip.requires_grad_(True).train()
    start_from_tower(clip, SiglipVisionModel.from_pretrained(root / "vision_tower"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(root / "scorer")
    questions = sorted(all_questions(), key=lambda q: q[2].replace(q[1], ""))  # the eight values of a template in a row
    encoded = [torch.tensor(tokenizer(text).input_ids) for _, _, text in questions]
    ids = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True, padding_value=tokenizer.eos_token_id)
    bias = torch.nn.Parameter(torch.tensor(-4.0))
    optimizer = torch.optim.AdamW([*clip.parameters(), bias], lr=1e-3, weight_decay=0.01)
    for step in range(steps):
        needles = [n if rng.random() < 0.75 else None for _ in range(12) for n in new_needles(8, 1, rng)]
        fits = torch.tensor(
            [[n is not None and value in (n.shape, n.colour) for _, value, _ in questions] for n in needles]
        )
        frames = scorer.preprocess(draw_frames(needles, rng)[0])
        images = F.normalize(clip.get_image_features(pixel_values=frames).pooler_output, dim=-1)
        texts = F.normalize(clip.get_text_features(input_ids=ids).pooler_output, dim=-1)
        logits = images @ texts.T * clip.logit_scale.exp().clamp(max=30) + bias  # [frames, questions]
        # Does it fit (a haystack fits nothing), and among the values that one template can name, which?
        choices = logits[fits.any(1)].unflatten(1, (-1, 8)).flatten(0, 1)
        right = fits[fits.any(1)].unflatten(1, (-1, 8)).flatten(0, 1).float().argmax(1)
        loss = F.cross_entropy(choices, right) + F.binary_cross_entropy_with_logits(logits, fits.float())
        optimizer.param_groups[0]["lr"] = 1e-3 * cosine(step, steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            with torch.no_grad():
                named = (choices.argmax(1) == right).float().mean()
                false = (logits > 0)[~fits].float().mean()
            console.print(f"scorer {step + 1}: loss {loss:.4f} named {named:.3f} false {false:.4f}")
    clip.save_pretrained(root / "scorer")


# -------------------------------------------------------------------------------------------- projector, language model


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


class Album:
    """Needles and haystacks as the trained tower sees them, drawn once and asked about many times.

    Attributes:
        patches: float[n, P, Dv].
        covered: float[n, T], the share of each token of a keyframe that its needle covers.
        on_needle: float[n, P], 1 for patches that the needle covers mostly; for two random ones without a needle.
        needles: what each frame shows, None for a haystack alone.
    """

    @torch.no_grad()
    def __init__(self, tower: SiglipTower, frames: int, rng: np.random.Generator) -> None:
        self.needles: list[Needle | None] = []
        self.rows: dict[tuple[str, str, str] | None, list[int]] = {}
        patches, covered, on_needle = [], [], []
        every = [Needle(*named) for named in itertools.product(SHAPES, COLOURS, PLACES)]
        turns = itertools.cycle(rng.permutation(len(every)))  # so that no needle is missing
        for _ in range(frames // 64):
            needles = [None if i % 8 == 7 else every[next(turns)] for i in range(64)]
            drawn, shares = draw_frames(needles, rng)
            patches.append(tower(drawn))
            anywhere = torch.from_numpy(rng.random(shares.shape)).argsort(1) < 2
            on_needle.append(torch.where((shares > 0.3).any(1, keepdim=True), shares > 0.3, anywhere).float())
            covered.append(F.avg_pool2d(shares.view(-1, GRID, GRID), GRID // KEYFRAME_GRID).flatten(1))
            self.needles += needles
        self.patches, self.covered, self.on_needle = torch.cat(patches), torch.cat(covered), torch.cat(on_needle)
        for row, needle in enumerate(self.needles):
            self.rows.setdefault(_named(needle), []).append(row)

    def row(self, needle: Needle | None, rng: np.random.Generator) -> int:
        """Any frame with this needle; of a haystack alone for None."""
        rows = self.rows[_named(needle)]
        return rows[int(rng.integers(len(rows)))]

    def ask(
        self, frames_each: int, batch: int, encode: PromptEncoder, rng: np.random.Generator
    ) -> tuple[Tensor, list[EncodedQuestion]]:
        """Questions, each over frames of its own of which some are haystacks: int64[batch, frames_each], the rows."""
        rows, questions = [], []
        for _ in range(batch):
            kind = KINDS[int(rng.integers(len(KINDS)))]
            shown = int(rng.integers(1, min(frames_each, 6) + 1))
            look_alikes = min(shown, len(PLACES)) if kind == "look_alike" else 1
            needles = new_needles(shown, look_alikes, rng)
            group = [self.row(needle, rng) for needle in needles]
            group += [self.row(None, rng) for _ in range(frames_each - len(group))]
            rows.append(rng.permutation(group))
            text, answer = ask(needles[0], kind, rng)
            questions.append(encode(Question(text, answer, text, kind), "", True, 0))
        return torch.from_numpy(np.stack(rows)), questions

    def in_words(self, rows: Tensor, encode: PromptEncoder, embeddings: Tensor) -> Tensor:
        """What the pictures would be if they were words: float[len(rows), T, D].

        A token that a needle covers is the sum of the embeddings of the words for it, and every other token is zero.
        """
        words = torch.zeros(len(rows), len(embeddings))
        for i, row in enumerate(rows.tolist()):
            if (needle := self.needles[row]) is not None:
                for word in (needle.shape, needle.colour, needle.place):
                    words[i, encode.tokenizer(word).input_ids] = 1.0
        return self.covered[rows, :, None] * (words @ embeddings)[:, None]


def _named(needle: Needle | None) -> tuple[str, str, str] | None:
    return None if needle is None else (needle.shape, needle.colour, needle.place)


def answer(model: VideoLM, frames: Sequence[Tensor], questions: list[EncodedQuestion]) -> tuple[Tensor, Tensor]:
    """(loss, exact bool[B]) for questions that see all tokens of equally many frames each, float[B * frames][T, D]."""
    each = len(frames) // len(questions)
    visuals = [torch.cat(list(frames[i * each : (i + 1) * each])) for i in range(len(questions))]
    joined = [model.join(q.input_ids, q.labels, visual) for q, visual in zip(questions, visuals, strict=True)]
    result = model.language_model.answer_loss([s for s, _ in joined], [label for _, label in joined])
    return result.total / result.tokens, result.exact


def some_merged(projector: Projector, album: Album, rows: Tensor, rng: np.random.Generator) -> list[Tensor]:
    """The tokens of frames, of which every other one, at random, is a single token: float[T or 1, D] each.

    That token stands for what a merger may make of a frame: a random mean of the patches that its needle covers, or of
    any two patches where there is no needle.
    """
    patches = album.patches[rows]
    whole = projector.project_keyframes(patches)
    weights = album.on_needle[rows] * torch.from_numpy(rng.exponential(size=patches.shape[:2]).astype(np.float32))
    merged = projector.keyframe((patches * weights[..., None]).sum(1, keepdim=True) / weights.sum(1)[:, None, None])
    return [
        one if alone else all_of_it
        for one, all_of_it, alone in zip(merged, whole, rng.random(len(rows)) < 0.5, strict=True)
    ]


class Lesson:
    """AdamW over some parts of the model for a number of steps, with its schedule and a line now and then."""

    def __init__(self, name: str, parts: list[torch.nn.Module], peak: float, steps: int) -> None:
        self.name, self.peak, self.steps, self.done = name, peak, steps, 0
        self.parameters = [p for part in parts for p in part.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=peak, weight_decay=0.05, betas=(0.9, 0.98))

    def step(self, loss: Tensor, **told: float) -> None:
        """One step down the loss."""
        self.optimizer.param_groups[0]["lr"] = self.peak * cosine(self.done, self.steps)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.done += 1
        if self.done % 100 == 0:
            figures = "".join(f" {name} {value:.3f}" for name, value in told.items())
            console.print(f"{self.name} {self.done}: loss {loss.item():.4f}{figures}")


def train_language_side(root: Path, quick: bool, rng: np.random.Generator) -> None:
    """Three lessons: to read words that stand for pictures; to see pictures as those words; to do both together.

    In the last one every other frame is a single token, as frames are behind a merger.

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
        loss, exact = answer(model, list(album.in_words(rows.flatten(), encode, embeddings)), questions)
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
        loss, exact = answer(model, some_merged(projector, album, rows.flatten(), rng), questions)
        lesson.step(loss, accuracy=exact.float().mean().item())
    language.lm.save_pretrained(root / "language_model")
    keyframe = {f"keyframe.{name}": value.contiguous() for name, value in projector.keyframe.state_dict().items()}
    save_file(keyframe, root / "projector.safetensors", metadata={"format": "pt"})


# -------------------------------------------------------------------------------------------------------------- scores


@torch.no_grad()
def measure(root: Path, seed: int) -> dict[str, float]:
    """What the saved parts score on frames that they have not seen."""
    rng = np.random.default_rng(seed)
    model, encode = load_base(root, root / "projector.safetensors")
    model.eval()
    album = Album(model.vision_tower, 1280, rng)
    scores = {}
    for frames_each in (1, 4, 8):
        exact: dict[str, list[bool]] = {kind: [] for kind in KINDS}
        for _ in range(20):
            rows, questions = album.ask(frames_each, 32, encode, rng)
            tokens = some_merged(model.projector, album, rows.flatten(), rng)
            for question, right in zip(questions, answer(model, tokens, questions)[1].tolist(), strict=True):
                exact[question.source.kind].append(right)
        for kind, answers in exact.items():
            scores[f"exact match, {kind}, {frames_each} frames ({len(answers)} questions)"] = float(np.mean(answers))
    found = []
    for _ in range(100):
        needles = new_needles(5, 1, rng)
        asked, kind = needles[0], KINDS[int(rng.integers(len(KINDS)))]
        text, _ = ask(asked, kind, rng)
        question = encode(Question(text, "", text, kind), "", True, 0)
        frames = model.scorer.embed_frames(draw_frames([*needles, *[None] * 123], rng)[0])
        found.append(int((frames @ model.scorer.embed_queries([question.query_ids])[0]).argmax()) == 0)
    scores["scorer: right frame first of 128 (100 questions)"] = float(np.mean(found))
    return scores


README = """# The tiny base

Small pretrained parts for `model=tiny`, in the layout of the large ones: `scorer/` (CLIP), `vision_tower/` (SigLIP),
`language_model/` (Qwen2), each readable with Transformers' `from_pretrained`, and `projector.safetensors` (the
keyframes' MLP). Made by us from drawings of `vilamp/data/needle_scene.py`; no foreign weights or data. It has never
seen a video. In training and below, half of the frames, at random, are one token: a random mean of the patches that
show the needle. The scorer learns shapes and colours, not places.

Rebuild and measure: `python scripts/build_tiny_base.py` (seed {seed}); measure only: `--measure`.

| measured | score |
|---|---|
{rows}
"""


def main() -> None:
    """Build, save, measure, write the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1] / "vilamp" / "assets" / "tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps only, to test this script")
    parser.add_argument("--measure", action="store_true", help="do not build, measure what is there")
    arguments = parser.parse_args()
    root: Path = arguments.root
    if not arguments.measure:
        start = time.perf_counter()
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        build_tokenizers(root)
        build_tower(root, 3 if arguments.quick else 1200, arguments.seed)
        build_scorer(root, 3 if arguments.quick else 800, arguments.seed)
        build_language_side(root, arguments.quick, arguments.seed)
        console.print(f"built in {(time.perf_counter() - start) / 60:.1f} minutes")
    scores = measure(root, arguments.seed + 1)
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in scores.items())
    (root / "README.md").write_text(README.format(seed=arguments.seed, rows=rows))
    console.print(rows)


if __name__ == "__main__":
    main()
