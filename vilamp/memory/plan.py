"""Runs a step, or an answer, of the configured model on tensors without numbers, and keeps what it took at its peak."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache

from vilamp.build import build_model, build_optim
from vilamp.errors import ConfigError
from vilamp.interfaces import Selection
from vilamp.memory.kernels import few_blocks, fused_kernels
from vilamp.memory.tracker import StorageTracker
from vilamp.models.frame_features import FrameFeatures
from vilamp.models.precision import held_in
from vilamp.models.video_lm import VideoLM
from vilamp.models.visual_stream import View, VisualStream
from vilamp.samples import IGNORED, VIDEO_TOKEN
from vilamp.training.optim import PartwiseAdamW

WEIGHTS, GRADIENTS, OPTIMIZER = "weights", "gradients", "optimizer"
SHARDED = (WEIGHTS, GRADIENTS, OPTIMIZER)
CHOICES = {"mode": ("infer", "train"), "precision": ("bf16", "fp32"), "device": ("cuda", "cpu")}
COUNTS = ("frames", "num_keyframes", "text_tokens", "answer_tokens", "batch", "gpus")
QUERY_TOKENS = 32
"""Of the question as the scorer reads it; its text tower takes next to nothing beside the frames."""


@dataclass(frozen=True)
class Plan:
    """What was counted.

    Attributes:
        phases: name of a phase (``watching``, ``prefill``, ``forward``, ``backward`` ...) -> label -> bytes at its
            peak.
        gathered: bytes that each GPU holds whole beside its share, where there are several.
        sequence: tokens in the language model.
        trainable: number of trained parameters.
    """

    phases: dict[str, Counter[str]]
    gathered: int
    sequence: int
    trainable: int


def plan(cfg: DictConfig) -> Plan:
    """Count.

    Args:
        cfg: as composed from ``conf/memory.yaml``.

    Raises:
        ConfigError: a setting out of range, or a video too long for the language model.
    """
    check(cfg)
    with torch.random.fork_rng(devices=[]):
        return _plan(cfg)


def _plan(cfg: DictConfig) -> Plan:
    model, optim = empty_model(cfg)
    _check_length(cfg, model)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    tracker = StorageTracker(fake)
    gpu = cfg.device == "cuda"
    frames = [_empty(fake, (cfg.frames, cfg.model.frame_size, cfg.model.frame_size, 3)) for _ in range(cfg.batch)]
    for video in frames:
        tracker.ignore(video)
    with fused_kernels(gpu=gpu), few_blocks(), tracker:
        counting = _Counting(cfg, model, optim, tracker, frames)
        counting.weights(fake)
        counting.follow(gpu=gpu)
        if cfg.mode == "infer":
            with torch.no_grad():
                counting.infer()
        else:
            counting.train(foreach=gpu)
    return Plan(
        phases=counting.phases,
        gathered=gathered(model, 2 if cfg.precision == "bf16" else 4),
        sequence=counting.sequence,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def check(cfg: DictConfig) -> None:
    """Raise ConfigError where a setting of ``conf/memory.yaml`` is out of range."""
    for key, choices in CHOICES.items():
        if cfg[key] not in choices:
            raise ConfigError(f"{key} must be one of {', '.join(choices)}, got {cfg[key]!r}")
    for key in COUNTS:
        if type(cfg[key]) is not int or cfg[key] < 1:
            raise ConfigError(f"{key} must be a whole number of at least 1, got {cfg[key]!r}")
    tokens = cfg.tokens_per_keyframe
    if tokens is not None and (type(tokens) is not int or tokens < 1 or math.isqrt(tokens) ** 2 != tokens):
        raise ConfigError(f"tokens_per_keyframe must be a square (196 is 14 x 14) or null, got {tokens!r}")


def _check_length(cfg: DictConfig, model: VideoLM) -> None:
    """Before anything is run: a video that is too long has many frames to watch."""
    length = model.max_visual_tokens(cfg.frames) + cfg.text_tokens + cfg.answer_tokens
    if length > model.language_model.context:
        raise ConfigError(
            f"a video of frames={cfg.frames} with text_tokens={cfg.text_tokens} and answer_tokens={cfg.answer_tokens} "
            f"is a sequence of up to {length} tokens, which does not fit the language model's context of "
            f"{model.language_model.context}; lower frames or tokens_per_keyframe"
        )


def empty_model(cfg: DictConfig) -> tuple[VideoLM, PartwiseAdamW | None]:
    """The model without its weights, each parameter in the precision and the mode that the run gives it."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    if cfg.tokens_per_keyframe is not None:
        cfg.model.projector.keyframe_grid = math.isqrt(cfg.tokens_per_keyframe)
    cfg.model.projector.path = None
    model = build_model(cfg, weights=False)
    optim = None
    if cfg.mode == "train":
        optim = build_optim(cfg)
        optim.freeze(model)
    else:
        model.requires_grad_(False).eval()
    return model, optim


def _empty(fake: FakeTensorMode, shape: tuple[int, ...]) -> Tensor:
    with fake:
        return torch.empty(shape, dtype=torch.uint8)


def gathered(model: VideoLM, computed: int) -> int:
    """Bytes that each GPU holds whole, at most, of a model that :func:`vilamp.training.sharding.shard` has spread.

    All but the language model's blocks is whole for a step, with its gradients.  Of the blocks there are two, one of
    which is on its way, in the precision that they are computed in, and one's gradients, which add up in float32.

    Args:
        model: the model.
        computed: bytes of a number in the language model's blocks while they are computed.
    """
    blocks = model.language_model.blocks
    of_blocks = {id(parameter) for block in blocks for parameter in block.parameters()}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in of_blocks]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in rest)
    gradients = sum(parameter.numel() * parameter.element_size() for parameter in rest if parameter.requires_grad)
    largest = max((list(block.parameters()) for block in blocks), key=lambda block: sum(p.numel() for p in block))
    block = sum(parameter.numel() for parameter in largest) * computed
    of_block = sum(parameter.numel() for parameter in largest if parameter.requires_grad) * (computed + 4)
    return weights + gradients + 2 * block + of_block


class _Counting:
    """The phases of a run, one after the other, on one tracker.

    Args:
        cfg: the settings.
        model: without weights.
        optim: None for inference.
        tracker: entered already.
        frames: uint8[N, H, W, 3] of every video, on the host.
    """

    def __init__(
        self,
        cfg: DictConfig,
        model: VideoLM,
        optim: PartwiseAdamW | None,
        tracker: StorageTracker,
        frames: list[Tensor],
    ) -> None:
        self.cfg = cfg
        self.model = model
        self.optim = optim
        self.tracker = tracker
        self.frames = frames
        self.phases: dict[str, Counter[str]] = {}
        self.sequence = 0
        self._cache: DynamicCache | None = None
        tracker.split = self._split_cache

    def weights(self, fake: FakeTensorMode) -> None:
        """Give every parameter a fake storage of the run's precision."""
        dtype = torch.bfloat16 if self.cfg.precision == "bf16" else torch.float32
        made: dict[int, nn.Parameter] = {}
        for path, parameter in self.model.named_parameters():
            with fake:
                storage = torch.empty(parameter.shape, dtype=held_in(path, parameter, dtype))
            self.tracker.relabel(storage, WEIGHTS)
            made[id(parameter)] = nn.Parameter(storage, requires_grad=parameter.requires_grad)
        for module in self.model.modules():
            for name, parameter in module._parameters.items():  # type: ignore[assignment]
                if parameter is not None:
                    module._parameters[name] = made[id(parameter)]

    def follow(self, *, gpu: bool) -> None:
        """Label what each part makes; let the vision tower, which repeats itself, run once."""
        model, tracker = self.model, self.tracker
        tracker.follow(model.scorer.clip.vision_model, "scorer")
        tracker.follow(model.vision_tower, "vision_tower")
        tracker.follow(model.language_model.lm.model, "language_model")
        tracker.follow(model.language_model.lm.lm_head, "logits")
        model.vision_tower.forward = tracker.run_once(model.vision_tower.forward)  # type: ignore[method-assign, assignment]
        if gpu:
            for part in (model.scorer, model.vision_tower):  # a chunk is copied from the host
                part.preprocess.register_forward_pre_hook(self._copy)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._is_gradient)

    def _copy(self, _: nn.Module, chunk: tuple[Tensor]) -> tuple[Tensor]:
        """One that was put together from several videos is a copy already; where it was made does not matter."""
        return (chunk[0].clone(),) if self.tracker.ignores(chunk[0]) else chunk

    def _is_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.tracker.relabel(parameter.grad, GRADIENTS)

    def _split_cache(self, live: Counter[str]) -> Counter[str]:
        for layer in [] if self._cache is None else self._cache.layers:
            for held in (getattr(layer, "keys", None), getattr(layer, "values", None)):
                if isinstance(held, Tensor):
                    size = held.untyped_storage().nbytes()
                    live["kv_cache"] += size
                    live["language_model"] -= size
        return live

    @contextmanager
    def _phase(self, name: str, label: str) -> Iterator[None]:
        self.tracker.restart()
        with self.tracker.labelled(label):
            yield
        self.phases[name] = self.tracker.peak

    def _watch(self, text: int) -> list[Tensor]:
        """The sequences float[L, D] of all videos: all that the model does before its language model runs."""
        model, cfg = self.model, self.cfg
        with self.tracker.labelled("scorer"):
            queries = []
            for video in self.frames:
                embedded = model.scorer.embed_frames(video)
                query_ids = torch.arange(QUERY_TOKENS).clamp_max(model.scorer.context - 1)
                query_ids[-1] = model.scorer.clip.config.text_config.eos_token_id
                queries.append(model.scorer.embed_queries([query_ids])[0])
                del embedded
        stream = VisualStream(model.vision_tower, model.merger, model.projector, model.chunk_size, model.anchor)
        count = min(cfg.num_keyframes, cfg.frames)
        keyframes = torch.arange(count) * (cfg.frames - 1) // max(count - 1, 1)  # evenly
        ids = torch.zeros(text + 1, dtype=torch.int64)
        ids[text // 2] = VIDEO_TOKEN
        views = [View(keyframes, query, 0, video) for video, query in enumerate(queries)]
        sequences = []
        for visual in stream(FrameFeatures(model.vision_tower, self.frames), views):
            if visual.requires_grad:
                visual.register_hook(self._leave_language_model)
            sequences.append(model.join(ids, ids, visual, Selection(keyframes)).embeddings)
        self.sequence = len(sequences[0])
        return sequences

    def _leave_language_model(self, gradient: Tensor) -> None:
        self.tracker.label = "merger_projector"

    def infer(self) -> None:
        """As VideoLM.generate: every video is watched, then question by question is answered."""
        lm = self.model.language_model.lm
        with self._phase("watching", "merger_projector"):
            sequences = self._watch(self.cfg.text_tokens)
        sequence = sequences[0]
        self._cache = DynamicCache(config=lm.config)
        with self._phase("prefill", "logits"):
            output = lm(inputs_embeds=sequence[None], past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            logits = output.logits[:, -1].float()
        with self._phase("decoding", "logits"):
            del output
            lm(input_ids=torch.zeros(1, 1, dtype=torch.int64), past_key_values=self._cache, use_cache=True)
            del logits
        per_token = self.phases["decoding"]["kv_cache"] // (self.sequence + 1)
        self.phases["decoding"]["kv_cache"] += per_token * (self.cfg.answer_tokens - 1)

    def train(self, *, foreach: bool) -> None:
        """One optimiser step as Lightning makes it, the optimiser's state and the last step's gradients in place."""
        assert self.optim is not None
        cfg, model = self.cfg, self.model
        optimizer, _ = self.optim.optimizer(model, 1)
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        for group in optimizer.param_groups:
            group["foreach"] = foreach
        with self.tracker.labelled(GRADIENTS):
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
        with self.tracker.labelled(OPTIMIZER):
            optimizer.step()
        text = cfg.text_tokens + cfg.answer_tokens
        labels = torch.full((text + 1,), IGNORED)
        # Copies in bfloat16 of what trains live as long as the step, but for those of gathered weights.
        bf16, cached = cfg.precision == "bf16", cfg.gpus == 1
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=cached)
        with autocast, self._phase("forward", "merger_projector"):
            sequences = self._watch(text)
            labels = torch.full((self.sequence,), IGNORED)
            labels[-cfg.answer_tokens :] = 0
            with self.tracker.labelled("logits"):
                loss = model.language_model.answer_loss(sequences, [labels] * cfg.batch).total
            del sequences
        optimizer.zero_grad()
        with self._phase("backward", "language_model"):
            loss.backward()
        del loss
        with self._phase("optimizer step", OPTIMIZER):
            if cfg.gradient_clip_val:
                torch.nn.utils.clip_grad_norm_(trained, cfg.gradient_clip_val, foreach=foreach)
            optimizer.step()
