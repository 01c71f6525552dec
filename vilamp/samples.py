"""The values that pass from the data to the model.  Data and models know these, and not each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vilamp.credentials import without_credentials
from vilamp.frame_file import FrameFile

if TYPE_CHECKING:  # packing and inspecting shards goes without torch
    from torch import Tensor

    from vilamp.embedding_cache import Lookup

IGNORED = -100
"""The label of a token that takes no part in the loss (torch's own default)."""

VIDEO_TOKEN = -200
"""Stands in ``EncodedQuestion.input_ids`` for the whole visual sequence; no tokenizer has a negative id."""


@dataclass(frozen=True)
class Video:
    """The sampled frames of one video.

    Attributes:
        key: names the sample in its shard.
        frames: uint8[N, H, W, 3], RGB, in temporal order; none of them where the reader has found the embeddings and
            needs no more (:attr:`vilamp.data.decode.VideoReader.needs_frames`).  Those of a long video are in a file,
            so whoever reads them takes a chunk at a time, ``frames[start:stop]``, and gets a tensor in both cases.
        timestamps: float64[N], seconds from the first frame of the video.
        decoder: who decoded it, to count by; empty where nobody had to.
        gaps: how many of the frames stand in for one that cannot be decoded.
        lookup: what the embedding cache has for it; None without a cache.
    """

    key: str
    frames: Tensor | FrameFile
    timestamps: Tensor
    decoder: str = ""
    gaps: int = 0
    lookup: Lookup | None = None

    def __len__(self) -> int:
        return self.timestamps.shape[0]

    def head(self, count: int) -> Video:
        """Its first ``count`` frames, none of which is copied, as a video without a lookup."""
        frames = self.frames.head(count) if isinstance(self.frames, FrameFile) else self.frames[:count]
        return Video(self.key, frames, self.timestamps[:count])


@dataclass(frozen=True)
class Question:
    """A question as its author wrote it (``data/README.md`` has the file format).

    Attributes:
        question: what the language model is asked.
        answer: what it should say.
        query: what the frames are searched for; the question itself unless the file says otherwise.
        kind: groups the questions in the metrics.
        evidence: spans of time in seconds in which the answer can be seen, where the file tells them.
        system: the system's turn before the question; without it that turn is the chat template's own, if it has one.
        prefill: how the answer begins; it is put into the answering turn, and ``answer`` goes on from there.
    """

    question: str
    answer: str
    query: str
    kind: str = "other"
    evidence: tuple[tuple[float, float], ...] = ()
    system: str = ""
    prefill: str = ""


@dataclass(frozen=True)
class EncodedQuestion:
    """A question as the models read it.

    Attributes:
        key: ``<sample key>/<number of the question>``.
        source: the question before encoding.
        query_ids: int64[Tq], for the scorer's text tower.
        input_ids: int64[T], for the language model; one :data:`VIDEO_TOKEN` where the video goes, none without a video.
        labels: int64[T], the token ids of the answer and of the end of turn, elsewhere :data:`IGNORED`.
        seed: seeds every random choice made for this question, a function of (run seed, epoch, key).
    """

    key: str
    source: Question
    query_ids: Tensor
    input_ids: Tensor
    labels: Tensor
    seed: int


EncodeQuestion = Callable[[Question, str, bool, int], EncodedQuestion]
"""(question, key, has_video, seed) -> EncodedQuestion; raises :class:`SkipSample` where it does not fit a context."""


@dataclass(frozen=True)
class Skip:
    """One sample, or one question of it, that could not be used.

    Attributes:
        key: of the sample or question.
        shard: the file it stands in; of a URL, what may be shown (:func:`vilamp.credentials.without_credentials`).
        reason: a short fixed word to count by (``decode``, ``missing_member``, ``bad_json``, ``too_long`` ...).
        detail: what exactly was wrong, for the quarantine file.
    """

    key: str
    shard: str
    reason: str
    detail: str

    def __post_init__(self) -> None:
        """Keep what lists and logs may hold."""
        for name in ("shard", "detail"):
            object.__setattr__(self, name, without_credentials(getattr(self, name)))


class SkipSample(Exception):  # noqa: N818  (a signal inside the pipeline, not an error of the run)
    """Raised inside the data pipeline for one unusable sample; becomes a counted :class:`Skip`, never ends the run."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[SkipSample], tuple[str, str]]:
        """From a worker it comes as it was raised."""
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class Batch:
    """Some videos and the questions about them.

    Attributes:
        videos: each video once, however many questions it has; their frames have one height and width.
        questions: all questions of the batch; may be empty where every sample of the batch was skipped.
        video_of: for each question the index of its video in ``videos``, -1 for a text-only question.
        skipped: what should have been in this batch and could not be used.
        samples: how many samples should have been in this batch.
        lost: how many of them are not; one that lost a question of four counts a quarter.
    """

    videos: list[Video]
    questions: list[EncodedQuestion]
    video_of: list[int]
    skipped: list[Skip] = field(default_factory=list)
    samples: int = 0
    lost: float = 0.0

    def only(self, index: int) -> Batch:
        """A batch of one of the questions and its video."""
        video = self.video_of[index]
        if video < 0:
            return Batch([], [self.questions[index]], [-1])
        return Batch([self.videos[video]], [self.questions[index]], [0])
