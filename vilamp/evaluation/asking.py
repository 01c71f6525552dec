"""Asks the model all questions about one video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

import torch
from torch import Tensor

from vilamp.benchmark import UNANSWERED, Benchmark, Graded, Item, Prompt, Verdict
from vilamp.data.order import question_seed
from vilamp.evaluation.answers import Answer
from vilamp.interfaces import Selection
from vilamp.models.continuation import Continuation
from vilamp.models.text import PromptEncoder
from vilamp.models.video_lm import VideoLM, positions_of
from vilamp.samples import IGNORED, Batch, EncodedQuestion, Question, SkipSample, Video
from vilamp.training.metrics import recall_of

SEEN_AT_ONCE = 32
"""Questions for which a video goes through the tower once; each has a visual sequence that waits for its turn."""
MASK_NUMBERS = 2**24
"""Most numbers of the mask, batch x length x length, that pads questions of different length which are answered
together; a question alone needs none, however long it is."""
GENERATION: Final = "generation"
LIKELIHOOD: Final = "likelihood"
T = TypeVar("T")
Seen = tuple[list[Tensor | None], list[Selection | None]]
See = Callable[[Sequence[EncodedQuestion]], Seen]
Scoring = Literal["generation", "likelihood", "both"]


def ways(scoring: Scoring) -> tuple[str, ...]:
    """The ways of answering that a setting stands for."""
    return (GENERATION, LIKELIHOOD) if scoring == "both" else (scoring,)


def grade(benchmark: Benchmark, item: Item, answer: Answer, way: str) -> Graded | None:
    """What an answer is worth in one way; None where the question has no options to be scored by likelihood."""
    if not answer.asked:
        return Graded(item, UNANSWERED, answered=False) if way == GENERATION or item.options else None
    if way == GENERATION:
        assert answer.text is not None
        return Graded(item, benchmark.judge(item, answer.text), text=answer.text)
    if answer.log_likelihoods is None:
        return None
    best = max(range(len(answer.log_likelihoods)), key=answer.log_likelihoods.__getitem__)  # the first of equal ones
    return Graded(item, Verdict(best in item.gold))


@dataclass(frozen=True)
class _Asked:
    """A question on its way through the model."""

    item: Item
    video: Video | None
    prompt: Prompt
    encoded: EncodedQuestion
    cut: bool


@dataclass(frozen=True)
class Asker:
    """Answers the questions about a video.

    The video goes through the scorer and the vision tower once for all questions (for each :data:`SEEN_AT_ONCE` of
    them).  Each prompt goes through the language model once; its options and the generated answer start from there.

    Attributes:
        model, encode, benchmark: these.
        scoring: how options are scored.
        seed: of the run.
        at_once: questions that the language model answers together, fewer where they are long.
    """

    model: VideoLM
    encode: PromptEncoder
    benchmark: Benchmark
    scoring: Scoring
    seed: int
    at_once: int

    def __call__(self, items: Sequence[Item], video: Video | None) -> list[Answer]:
        """One answer for each question, in their order, without ``video_bytes`` and ``seconds``."""

        def see(encoded: Sequence[EncodedQuestion]) -> Seen:
            return self.model.see(Batch([video] if video else [], list(encoded), [0 if video else -1] * len(encoded)))

        return self.about(items, [video] * len(items), see)

    @torch.no_grad()
    def about(self, items: Sequence[Item], videos: Sequence[Video | None], see: See) -> list[Answer]:
        """The same, for questions that are seen in some other way.

        Args:
            items: the questions.
            videos: of each; of a video that ``see`` sees, only the timestamps and gaps are looked at.
            see: gives what :meth:`vilamp.models.video_lm.VideoLM.see` gives, for some of the questions.
        """
        prepared = [self._prepare(item, video) for item, video in zip(items, videos, strict=True)]
        asked = [one for one in prepared if isinstance(one, _Asked)]
        answered = iter([answer for some in _parts(asked, SEEN_AT_ONCE) for answer in self._ask(some, see)])
        return [next(answered) if isinstance(one, _Asked) else one for one in prepared]

    def _prepare(self, item: Item, video: Video | None) -> _Asked | Answer:
        try:
            return self._read(item, video)
        except SkipSample as skip:
            return Answer(item.key, None, reason=skip.reason, detail=skip.detail)

    def encoded(self, item: Item, video: Video | None) -> EncodedQuestion:
        """The question as the model reads it.

        Raises:
            SkipSample: it cannot be asked.
        """
        return self._read(item, video).encoded

    def _read(self, item: Item, video: Video | None) -> _Asked:
        prompt = self.benchmark.ask(item, [] if video is None else video.timestamps.tolist())
        query, cut = self._fit(item.query or item.question) if video is not None else ("", False)
        question = Question(
            prompt.text, "", query, evidence=item.evidence, system=prompt.system, prefill=prompt.prefill
        )
        encoded = self.encode(question, item.key, video is not None, question_seed(self.seed, 0, item.key))
        room = self.encode.max_text_tokens - len(encoded.input_ids)
        if room < self.benchmark.max_new_tokens:
            raise SkipSample(
                "too_long",
                f"the prompt leaves room for {room} more tokens, benchmark.max_new_tokens is "
                f"{self.benchmark.max_new_tokens}; lower max_frames, num_keyframes or that",
            )
        return _Asked(item, video, prompt, encoded, cut)

    def _fit(self, query: str) -> tuple[str, bool]:
        """A question as far as the scorer reads it, cut behind a word, and whether anything was cut off."""
        fitted = self.encode.fit_query(query)
        return fitted, fitted != query

    def _ask(self, asked: Sequence[_Asked], see: See) -> list[Answer]:
        visuals, selections = see([one.encoded for one in asked])
        answers = []
        for some in together([0 if visual is None else len(visual) for visual in visuals], self.at_once):
            said = self._continue(asked[some], visuals[some], selections[some])
            for one, visual, selection, (text, score) in zip(
                asked[some], visuals[some], selections[some], said, strict=True
            ):
                answers.append(self._answer(one, selection, visual, text, score))
        return answers

    def _continue(
        self, asked: Sequence[_Asked], visuals: Sequence[Tensor | None], selections: Sequence[Selection | None]
    ) -> list[tuple[str | None, list[float] | None]]:
        """The generated text and the options' log likelihoods of some questions, None for what is not wanted."""
        joined = []
        for one, visual, selection in zip(asked, visuals, selections, strict=True):
            prompt = one.encoded.input_ids[one.encoded.labels == IGNORED]
            joined.append(self.model.join(prompt, prompt, visual, selection))
        sequences = [one.embeddings for one in joined]
        continuation = Continuation(self.model.language_model, sequences, positions_of(joined))
        texts: Sequence[str | None] = [None] * len(asked)
        if GENERATION in ways(self.scoring):
            end = self.encode.tokenizer.eos_token_id
            texts = [self.encode.decode(ids) for ids in continuation.greedy(self.benchmark.max_new_tokens, end)]
        scores = self._score(asked, continuation) if LIKELIHOOD in ways(self.scoring) else [None] * len(asked)
        return list(zip(texts, scores, strict=True))

    def _score(self, asked: Sequence[_Asked], continuation: Continuation) -> list[list[float] | None]:
        """The log likelihoods of each question's options, None for an open question."""
        none = [torch.tensor([self.encode.tokenizer.eos_token_id])]  # something to compute where there is no option
        options = [[self._ids(text) for text in one.prompt.continuations] or none for one in asked]
        scores = continuation.log_likelihoods(options)
        return [score if one.prompt.continuations else None for one, score in zip(asked, scores, strict=True)]

    def _ids(self, text: str) -> Tensor:
        return torch.tensor(self.encode.tokenizer(text, add_special_tokens=False).input_ids)

    def _answer(
        self,
        one: _Asked,
        selection: Selection | None,
        visual: Tensor | None,
        text: str | None,
        score: list[float] | None,
    ) -> Answer:
        answer, video = Answer(one.item.key, None, text=text, log_likelihoods=score, query_cut=one.cut), one.video
        if video is not None and selection is not None and visual is not None:
            chosen = video.timestamps[selection.keyframes.cpu()]
            recall = recall_of(one.item.evidence, video.timestamps, chosen)
            answer = replace(
                answer,
                frames=len(video),
                keyframes=[round(time, 3) for time in chosen.tolist()],
                visual_tokens=len(visual),
                gaps=video.gaps,
                recall=recall.share if recall else None,
            )
        graded = {way: grade(self.benchmark, one.item, answer, way) for way in ways(self.scoring)}
        return replace(answer, right={way: g.verdict.right for way, g in graded.items() if g is not None})


def together(lengths: Sequence[int], at_once: int) -> Iterator[slice]:
    """Which questions the language model answers together: up to ``at_once`` in a row, fewer where they are long.

    Args:
        lengths: of their visual sequences, in tokens.
        at_once: at least 1.
    """
    start = 0
    for stop in range(1, len(lengths) + 1):
        longer = lengths[start : stop + 1]
        if stop == len(lengths) or len(longer) > at_once or len(longer) * max(longer) ** 2 > MASK_NUMBERS:
            yield slice(start, stop)
            start = stop


def _parts(whole: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (whole[start : start + size] for start in range(0, len(whole), size))
