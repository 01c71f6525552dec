"""The whole model: frames and a question in, the loss of the answer or the answer itself out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vilamp.embedding_cache import EmbeddingCache
from vilamp.errors import ConfigError
from vilamp.interfaces import FrameMerger, FrameSelector, Selection
from vilamp.models.anchors import PRECEDING, RULES
from vilamp.models.checkpoint import Report
from vilamp.models.frame_features import FrameFeatures
from vilamp.models.language_model import LanguageModel
from vilamp.models.projector import Projector
from vilamp.models.scorer import ClipScorer
from vilamp.models.vision_tower import SiglipTower
from vilamp.models.visual_stream import View, VisualStream, token_steps
from vilamp.samples import IGNORED, VIDEO_TOKEN, Batch, EncodedQuestion, Video

HOW_TO_FIT = (
    "pool keyframes to fewer tokens (model.projector.keyframe_grid, variant.keyframe_grid where the model follows it), "
    "lower num_keyframes or data.max_frames, or choose a model.language_model.path with a longer context"
)
"""What a user can do about a video that is too long for the language model."""


@dataclass(frozen=True)
class Output:
    """What the model says about a batch of B questions.

    Attributes:
        total: scalar, cross entropy summed over the answer tokens of the batch; 0 without questions.
        answer_tokens: how many there are.
        exact: bool[B], greedy decoding would give the answer to the letter.
        selections: for each question the frames that kept full precision; None for a text-only one.
        visual_tokens: for each question the length of its visual sequence.
    """

    total: Tensor
    answer_tokens: int
    exact: Tensor
    selections: list[Selection | None]
    visual_tokens: list[int]

    @property
    def loss(self) -> Tensor:
        """Scalar, mean cross entropy over the answer tokens of the batch; 0 without questions."""
        return self.total / max(self.answer_tokens, 1)


@dataclass(frozen=True)
class Joined:
    """A question with its video as the language model reads it.

    Attributes:
        embeddings: float[L, D].
        labels: int64[L].
        positions: float[L], where the tokens stand; None: one behind the other.
    """

    embeddings: Tensor
    labels: Tensor
    positions: Tensor | None


def positions_of(joined: Sequence[Joined]) -> list[Tensor] | None:
    """Those of several questions to the same model, as the language model takes them."""
    positions = [one.positions for one in joined if one.positions is not None]
    return positions or None


class VideoLM(nn.Module):
    """Scorer -> selector -> vision tower -> merger -> projector -> language model.

    The six parts are its children under these names, which are also the names of the optimiser's parameter groups.

    Args:
        scorer: embeds frames and questions.
        selector: picks keyframes.
        vision_tower: encodes frames.
        merger: reduces the other frames.
        projector: into the language model's space.
        language_model: answers.
        num_keyframes: K.
        chunk_size: frames in the vision tower at a time.
        anchor: what a merged frame is compared with, one of :data:`vilamp.models.anchors.RULES`.
        merged_step: how far a merged frame's token stands behind the token before it; all others stand one behind.
            Below 1 a long video takes fewer positions, of which the language model knows only so many (V2PE,
            arXiv 2412.09616); 1 is the method's. Needs a language model with rotary positions.

    Raises:
        ConfigError: a size below 1, a step that is not above 0 and at most 1, or no such rule.
    """

    def __init__(
        self,
        scorer: ClipScorer,
        selector: FrameSelector,
        vision_tower: SiglipTower,
        merger: FrameMerger,
        projector: Projector,
        language_model: LanguageModel,
        num_keyframes: int,
        chunk_size: int,
        anchor: str = PRECEDING,
        merged_step: float = 1.0,
    ) -> None:
        super().__init__()
        if type(chunk_size) is not int or num_keyframes < 1 or chunk_size < 1:
            raise ConfigError(
                "num_keyframes and model.chunk_size must be whole numbers of at least 1, got "
                f"{num_keyframes} and {chunk_size}"
            )
        if type(merged_step) not in (int, float) or not 0 < merged_step <= 1:
            raise ConfigError(f"model.merged_step must be above 0 and at most 1, got {merged_step!r}")
        if anchor not in RULES:
            raise ConfigError(f"model.anchor (variant.anchor) must be one of {', '.join(RULES)}, got {anchor!r}")
        self.scorer = scorer
        self.selector = selector
        self.vision_tower = vision_tower
        self.merger = merger
        self.projector = projector
        self.language_model = language_model
        self.num_keyframes = num_keyframes
        self.chunk_size = chunk_size
        self.anchor = anchor
        self.merged_step = merged_step
        self.embedding_cache: EmbeddingCache | None = None
        """Keeps the embeddings of videos that come with a lookup of it."""
        self.init_report: Report | None = None
        """What became of the checkpoint that the model was filled from, None where there was none."""

    def max_visual_tokens(self, num_frames: int) -> int:
        """The longest visual sequence that a video of N frames can give."""
        keyframes = min(self.num_keyframes, num_frames)
        per_keyframe = self.projector.tokens_per_keyframe(self.vision_tower.grid**2)
        per_frame = self.merger.tokens_per_frame
        # A selector may take fewer frames than K, even none, and then the others are merged.
        frames = max(k * per_keyframe + (num_frames - k) * per_frame for k in (0, keyframes))
        return frames + self.projector.tokens_per_video

    def forward(self, batch: Batch) -> Output:
        """Loss and exact match for every question of a batch.

        The loss depends on every weight that trains, whatever is in the batch, and every layer of the language model
        runs once and hands on the gradient of its input: processes that train one model together meet in all of that,
        in the same order.
        """
        visuals, selections = self.see(batch)
        joined = [
            self.join(question.input_ids, question.labels, visual, selection)
            for question, visual, selection in zip(batch.questions, visuals, selections, strict=True)
        ]
        lengths = [0 if visual is None else len(visual) for visual in visuals]
        if not joined:  # all were skipped
            joined = [self.join(torch.zeros(1, dtype=torch.int64), torch.full((1,), IGNORED), None, None)]
        sequences = [one.embeddings for one in joined]
        if all(video < 0 for video in batch.video_of):  # text alone would reach the language model only
            sequences[0] = sequences[0] + self._zero_of_visual_parts()
        answers = self.language_model.answer_loss(sequences, [one.labels for one in joined], positions_of(joined))
        exact = answers.exact[: len(batch.questions)]
        return Output(answers.total, answers.tokens, exact, selections, lengths)

    def _zero_of_visual_parts(self) -> Tensor | float:
        """A zero that depends on every weight outside the language model that trains."""
        parts = [part for part in self.children() if part is not self.language_model]
        return sum((p.sum() * 0 for part in parts for p in part.parameters() if p.requires_grad), start=0.0)

    @torch.no_grad()
    def generate(self, batch: Batch, max_new_tokens: int, end: int) -> list[Tensor]:
        """Greedy answers, int64[T] each; what ``labels`` tells about the right answer is not looked at."""
        answers = []
        for question, visual, selection in zip(batch.questions, *self.see(batch), strict=True):
            prompt = question.input_ids[question.labels == IGNORED]
            joined = self.join(prompt, prompt, visual, selection)
            answers.append(self.language_model.generate(joined.embeddings, max_new_tokens, end, joined.positions))
        return answers

    def see(
        self, batch: Batch, features: FrameFeatures | None = None
    ) -> tuple[list[Tensor | None], list[Selection | None]]:
        """The visual sequence float[V, D] and the selection for every question; None for a text-only one.

        Args:
            batch: videos and questions.
            features: of the videos, where they may be known already; None computes them.
        """
        visuals: list[Tensor | None] = [None] * len(batch.questions)
        selections: list[Selection | None] = [None] * len(batch.questions)
        views: dict[int, View] = {}
        for index, video in enumerate(batch.videos):
            asked = [i for i, of in enumerate(batch.video_of) if of == index]
            if not asked:
                continue
            picked, queries = self.select(video, [batch.questions[i] for i in asked])
            for i, selection, query in zip(asked, picked, queries, strict=True):
                selections[i] = selection
                views[i] = View(selection.keyframes.cpu(), query, batch.questions[i].seed, index)
        if features is None:
            features = FrameFeatures(self.vision_tower, [video.frames for video in batch.videos])
        for i, sequence in zip(views, self.stream()(features, list(views.values())), strict=True):
            visuals[i] = sequence
        return visuals, selections

    def stream(self) -> VisualStream:
        """Vision tower, merger and projector, to take videos through."""
        return VisualStream(self.vision_tower, self.merger, self.projector, self.chunk_size, self.anchor)

    def select(self, video: Video, questions: Sequence[EncodedQuestion]) -> tuple[list[Selection], Tensor]:
        """Keyframes of a video for each of Q questions, and float[Q, Ds], the questions as the merger takes them."""
        frames = self.embed(video)  # [N, Ds]
        raw = self.scorer.encode_queries([question.query_ids for question in questions])  # [Q, Ds]
        queries = F.normalize(raw, dim=-1)
        timestamps = video.timestamps.to(frames.device)
        selections = [
            self.selector(
                frames,
                query,
                self.num_keyframes,
                timestamps=timestamps,
                generator=torch.Generator().manual_seed(question.seed),
            )
            for query, question in zip(queries, questions, strict=True)
        ]
        return selections, queries if self.merger.unit_query else raw

    def embed(self, video: Video) -> Tensor:
        """float[N, Ds], the embeddings of a video's frames: those that it brings, else the scorer's, which are kept."""
        lookup = video.lookup
        if lookup is not None and lookup.embeddings is not None:
            return lookup.embeddings.to(self.scorer.preprocess.mean.device)
        embeddings = self.scorer.embed_frames(video.frames)
        if lookup is not None and self.embedding_cache is not None:
            self.embedding_cache.store(lookup.key, embeddings, video.timestamps)
        return embeddings

    def join(self, ids: Tensor, labels: Tensor, visual: Tensor | None, selection: Selection | None) -> Joined:
        """Put the visual sequence where the marker stands.

        Args:
            ids: int64[T], with one :data:`~vilamp.samples.VIDEO_TOKEN` if there is a visual sequence.
            labels: int64[T].
            visual: float[V, D], or None for text alone.
            selection: the keyframes in the visual sequence; None for text alone.

        Returns:
            L = T - 1 + V tokens.

        Raises:
            ConfigError: the whole does not fit the language model's context; nothing is ever cut off in silence.
            ValueError: a visual sequence without its selection, or the other way round.
        """
        if (visual is None) != (selection is None):
            raise ValueError("a visual sequence and its selection come together; one of them is None")
        length = len(ids) if visual is None else len(ids) - 1 + len(visual)
        if length > self.language_model.context:
            raise ConfigError(
                f"a sequence of {length} tokens does not fit the language model's context of "
                f"{self.language_model.context}; {HOW_TO_FIT}"
            )
        if visual is None:
            return Joined(self.language_model.embed(ids), labels, self._positions(length, 0, None))
        at = int((ids == VIDEO_TOKEN).nonzero())
        text = self.language_model.embed(torch.cat([ids[:at], ids[at + 1 :]]))
        sequence = torch.cat([text[:at], visual.to(text.dtype), text[at:]])
        ignored = labels.new_full((len(visual),), IGNORED)
        labels = torch.cat([labels[:at], ignored, labels[at + 1 :]])
        return Joined(sequence, labels, self._positions(length, len(visual), selection, at))

    def _positions(self, length: int, visual: int, selection: Selection | None, at: int = 0) -> Tensor | None:
        """float[L], where the tokens stand, ``visual`` of them from number ``at`` on; None: one behind the other."""
        if self.merged_step == 1:
            return None
        steps = torch.ones(length, dtype=torch.float32)
        if selection is not None:
            steps[at : at + visual] = self._visual_steps(visual, selection.keyframes.cpu())
        return steps.cumsum(0) - steps[0]

    def _visual_steps(self, length: int, keyframes: Tensor) -> Tensor:
        """float[V], how far each token of a visual sequence stands behind the one before."""
        per_keyframe = self.projector.tokens_per_keyframe(self.vision_tower.grid**2)
        per_merged, of_video = self.merger.tokens_per_frame, self.projector.tokens_per_video
        if not per_merged:  # what is dropped leaves no gap
            return torch.ones(length)
        num_frames = len(keyframes) + (length - of_video - len(keyframes) * per_keyframe) // per_merged
        steps = token_steps(keyframes, num_frames, per_keyframe, per_merged, self.merged_step)
        return torch.cat([steps, torch.ones(of_video)])
