"""Open a video once, ask many questions: the Python API behind ``vilamp.load``, ``vilamp ask`` and ``vilamp demo``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from vilamp.build import build_encoder, build_model, build_object
from vilamp.config import compose, override, require_whole_numbers
from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.data.isolation import Budget
from vilamp.data.order import question_seed
from vilamp.data.spool import IN_MEMORY_GIB, Spool
from vilamp.decoders.auto import AutoDecoder
from vilamp.embedding_cache import Lookup
from vilamp.errors import ConfigError, DataError
from vilamp.interfaces import Selection, VideoDecoder
from vilamp.locations import asset
from vilamp.models.frame_features import KeptFeatures, cut
from vilamp.models.precision import hold, precision
from vilamp.models.text import PromptEncoder
from vilamp.models.video_lm import VideoLM
from vilamp.probe import FileRange
from vilamp.report.samples import KEYFRAMES, Sample, Still, jpeg, spread
from vilamp.report.timeline import timeline_figure
from vilamp.samples import IGNORED, Batch, EncodedQuestion, Question, SkipSample, Video
from vilamp.training.run import configuration_of
from vilamp.training.trained import Trained, read_trained

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""(what is being done, how many frames of it are done, of how many); before the frames are counted it is 0 of 0."""


@dataclass(frozen=True)
class Answer:
    """What the model says, and what it looked at.

    Attributes:
        text: the answer.
        confidence: the probability that the model gives to just this answer, 0 to 1.  It is no probability of being
            right: a model that has learnt little can be sure of anything.
        question: as it was read.
        selection: keyframes and relevance.
        times: float64[N], of the frames, in seconds.
        visual_tokens: how long the video is for the language model.
        seconds: what the answer took, without watching the video.
    """

    text: str
    confidence: float
    question: EncodedQuestion
    selection: Selection
    times: torch.Tensor
    visual_tokens: int
    seconds: float

    @property
    def keyframes(self) -> list[float]:
        """When the frames that were kept whole are on display, in seconds."""
        return [round(time, 3) for time in self.times[self.selection.keyframes.cpu()].tolist()]

    @property
    def relevance(self) -> list[float] | None:
        """The cosine of each frame with the question; None for a selector that does not look at the question."""
        return None if self.selection.relevance is None else self.selection.relevance.float().cpu().tolist()

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return {
            "question": self.question.source.question,
            "answer": self.text,
            "confidence": self.confidence,
            "keyframes": self.keyframes,
            "times": self.times.tolist(),
            "relevance": self.relevance,
            "visual_tokens": self.visual_tokens,
            "seconds": self.seconds,
        }


class Session:
    """One video that has been watched; a question only selects, merges and answers.

    Args:
        loaded: the model.
        video: the frames.
        progress: is told how far it is.

    Attributes:
        video: the frames with the scorer's embeddings of them.
        features: what the vision tower says of them.
    """

    def __init__(self, loaded: LoadedModel, video: Video, progress: Progress | None = None) -> None:
        self.loaded = loaded
        self.video, self.features = _watch(loaded, video, progress or _silent)

    @torch.no_grad()
    def ask(self, question: str) -> Answer:
        """Answer a question about the video.

        Raises:
            DataError: the question is empty, or too long for the model.
        """
        begun = time.perf_counter()
        encoded = self._encode(question)
        model, tokenizer = self.loaded.model, self.loaded.encode.tokenizer
        (visual,), (selection,) = model.see(Batch([self.video], [encoded], [0]), self.features)
        assert visual is not None and selection is not None
        prompt = encoded.input_ids[encoded.labels == IGNORED]
        joined = model.join(prompt, prompt, visual, selection)
        said = model.language_model.answer(
            joined.embeddings, self.loaded.max_new_tokens, tokenizer.eos_token_id, joined.positions
        )
        return Answer(
            text=self.loaded.encode.decode(said.ids).strip(),
            confidence=said.probability,
            question=encoded,
            selection=selection,
            times=self.video.timestamps,
            visual_tokens=len(visual),
            seconds=time.perf_counter() - begun,
        )

    def _encode(self, text: str) -> EncodedQuestion:
        encode, text = self.loaded.encode, tidy(text)
        key = f"{self.video.key}/{text}"
        seed = question_seed(self.loaded.seed, 0, key)
        try:
            return encode(Question(text, "", encode.fit_query(text)), key, True, seed)
        except SkipSample as skip:
            raise DataError(f"the question cannot be asked: {skip.detail}") from skip

    def timeline(self, answer: Answer) -> Figure:
        """Relevance over time and the keyframes, as a picture."""
        keyframes = answer.selection.keyframes.tolist()
        stills = [
            Still(frame, jpeg(self.video.frames[frame].cpu().numpy()), merged=False)
            for frame in spread(keyframes, KEYFRAMES)
        ]
        sample = Sample(
            key=answer.question.key,
            question=answer.question.source.question,
            kind="",
            answer=answer.text,
            right_answer="",
            exact=None,
            evidence=[],
            times=answer.times.tolist(),
            relevance=answer.relevance,
            keyframes=keyframes,
            stills=stills,
        )
        return timeline_figure(sample)


@dataclass(frozen=True)
class LoadedModel:
    """A model and how it reads videos.

    Attributes:
        model: in evaluation mode, nothing trains.
        encode: turns questions into token ids.
        reader: decodes.
        seed: of random choices, of which each question has its own.
        features_room: bytes of patch features that a session keeps.
        max_new_tokens: of an answer.
        remark: what a user should know of the model; empty where there is nothing.
    """

    model: VideoLM
    encode: PromptEncoder
    reader: VideoReader
    seed: int
    features_room: int
    max_new_tokens: int
    remark: str = ""

    def open(self, video: str | PathLike[str], progress: Progress | None = None) -> Session:
        """Read and watch a video.

        Args:
            video: path of a file.
            progress: is told how far it is.

        Raises:
            DataError: there is no such file, or it cannot be decoded.
        """
        path = Path(video)
        if not path.is_file():
            raise DataError(f"there is no video {path}")
        (progress or _silent)("reading", 0, 0)
        try:
            read = self.reader.read(FileRange(str(path), 0, path.stat().st_size), path.name)
        except SkipSample as skip:
            raise DataError(f"{skip.detail} (decoder=NAME takes another decoder)") from skip
        return Session(self, read, progress)


def _silent(doing: str, done: int, total: int) -> None:
    """For who does not want to know."""


@torch.no_grad()
def _watch(loaded: LoadedModel, video: Video, progress: Progress) -> tuple[Video, KeptFeatures]:
    """All that does not depend on a question, chunk by chunk, in the chunks in which questions will ask for it."""
    model, total = loaded.model, len(video)
    embeddings: list[torch.Tensor] = []
    for start in range(0, total, model.scorer.chunk_size):
        progress("looking through", start, total)
        embeddings.append(model.scorer.embed_frames(video.frames[start : start + model.scorer.chunk_size]))
    features = KeptFeatures(model.vision_tower, [video.frames], loaded.features_room)
    for spans in cut([total], model.chunk_size):
        progress("looking closely", spans[0].start, total)
        before = features.num_kept
        features.chunk(spans)
        if features.num_kept == before:
            log.warning(
                "what the vision tower says of %d of the %d frames is kept, of the others it is computed for each "
                "question; features_gib=%g is the room for it", before, total, loaded.features_room / 2**30
            )  # fmt: skip
            break
    progress("looking closely", total, total)
    known = Lookup(video.key, torch.cat(embeddings), video.timestamps)
    return replace(video, lookup=known), features


def load(checkpoint: str | PathLike[str] | None = None, settings: Mapping[str, Any] | None = None) -> LoadedModel:
    """See :func:`vilamp.load`."""
    named = {"checkpoint": None if checkpoint is None else str(checkpoint), **(settings or {})}
    return load_configured(compose("ask", [override(key, value) for key, value in named.items()]))


def load_configured(cfg: DictConfig) -> LoadedModel:
    """The same from what was composed of ``conf/ask.yaml``.

    Raises:
        ConfigError: no such checkpoint, a setting that cannot be, or parts that do not fit together.
    """
    require_whole_numbers(cfg)
    _check(cfg)
    if cfg.checkpoint is None:  # a run that has not trained yet
        config = cast(dict[str, Any], OmegaConf.to_container(compose("train"), resolve=False))
        trained = Trained(Path(), config, {})
    else:
        trained = read_trained(str(cfg.checkpoint), "checkpoint")
    merged = configuration_of(cfg, trained)
    torch.manual_seed(merged.seed)
    model = build_model(merged).eval()
    trained.fill(model)
    model.requires_grad_(False)
    hold(model, precision(merged.model.get("dtype", "float32")))
    model.to(cfg.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return LoadedModel(
        model=model,
        encode=build_encoder(merged, model),
        reader=_reader(merged),
        seed=merged.seed,
        features_room=int(cfg.features_gib * 2**30),
        max_new_tokens=cfg.max_new_tokens,
        remark=_remark(merged, trained=cfg.checkpoint is not None),
    )


def _check(cfg: DictConfig) -> None:
    if not isinstance(cfg.features_gib, int | float) or cfg.features_gib < 0:
        raise ConfigError(f"features_gib must be a number of at least 0, got {cfg.features_gib!r}")
    if type(cfg.max_new_tokens) is not int or cfg.max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens must be a whole number of at least 1, got {cfg.max_new_tokens!r}")
    if cfg.device not in (None, "cpu", "cuda"):
        raise ConfigError(f"device must be cpu, cuda or null, got {cfg.device!r}")
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch finds no GPU here; set device=cpu or null")


def _reader(cfg: DictConfig) -> VideoReader:
    node, data = cfg.get("decoder"), cfg.data
    decoder = build_object(node, VideoDecoder, "decoder") if node else AutoDecoder()
    frames = FrameSettings(
        data.fps,
        data.max_frames,
        cfg.model.frame_size,
        **{key: data[key] for key in ("sampling", "corrupt", "max_gaps") if key in data},
    )
    budget = Budget(data.get("decode_timeout"), data.get("decode_memory"))
    return VideoReader(
        decoder, frames, budget, Spool(data.get("frames_in_memory", IN_MEMORY_GIB), data.get("frames_dir"))
    )


def _remark(cfg: DictConfig, trained: bool) -> str:
    if not Path(cfg.model.language_model.path).is_relative_to(asset("tiny")):
        return ""
    if trained:
        return "This is a tiny model: it knows nothing but what it was trained on."
    return (
        "This is the tiny model that comes with the package. It has never seen a real video: it knows coloured shapes, "
        "and answers with their words, if at all. checkpoint=... takes a model that you trained."
    )


def tidy(question: str) -> str:
    """The question with single spaces; raises DataError where nothing is left."""
    text = " ".join(question.split())
    if not text:
        raise DataError("the question is empty; ask something about the video")
    return text
