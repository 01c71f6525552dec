"""Looks at a few questions closely, for the report: what was selected, and what the merger looked at."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from vilamp.frame_file import FrameFile
from vilamp.interfaces import FrameMerger, Selection
from vilamp.models.text import PromptEncoder
from vilamp.models.video_lm import VideoLM
from vilamp.report.samples import KEYFRAMES, Cost, Sample, Samples, Still, jpeg, spread
from vilamp.samples import Batch, EncodedQuestion
from vilamp.training.memory import peak_rss_gib, reset_peak_rss

EACH = 3
"""So many questions with a right and with a wrong answer are shown, if those that are searched have them."""
BATCHES = 8
"""Of the validation set, from its start, in which they are searched."""
MERGED = 8
"""Most merged frames of a question that are shown."""
MOST_LETTERS = 2000
"""Of a text; a longer one is cut off."""
MAX_ANSWER_TOKENS = 32
Frames = Tensor | FrameFile | Mapping[int, Tensor]
"""uint8[H, W, 3] by number, those that are shown at least."""


@torch.no_grad()
def show(model: VideoLM, encode: PromptEncoder, batches: Iterable[Batch]) -> Samples:
    """Some questions, right and wrong ones, and what a video costs in parts of its length.

    Args:
        model: in evaluation mode.
        encode: of the model.
        batches: of the validation set; one after the other is asked for until enough was found.
    """
    found: list[Sample] = []
    costs: list[Cost] = []
    wanted = Wanted()
    for number, batch in enumerate(islice(batches, BATCHES)):
        asked = [i for i, video in enumerate(batch.video_of) if video >= 0]
        exact = model(batch).exact.tolist()
        if asked and not costs:
            longest = max(asked, key=lambda i: len(batch.videos[batch.video_of[i]]))
            costs = _costs(model, batch.only(longest))
        for index in asked:
            if wanted.takes((number, batch.video_of[index]), exact[index]):
                found.append(_sample(model, encode, batch.only(index)))
        if wanted.nothing_more:
            break
    return Samples(found, costs)


class Wanted:
    """Which questions are still to be shown: of one video at most one with a right and one with a wrong answer."""

    def __init__(self) -> None:
        self._videos: dict[bool, set[object]] = {True: set(), False: set()}

    def takes(self, video: object, right: bool) -> bool:
        """Whether a question is to be shown, which then counts as shown.

        Args:
            video: tells videos apart.
            right: whether the answer is.
        """
        videos = self._videos[right]
        if len(videos) == EACH or video in videos:
            return False
        videos.add(video)
        return True

    @property
    def nothing_more(self) -> bool:
        """Whether there are enough of both."""
        return all(len(videos) == EACH for videos in self._videos.values())


@contextmanager
def told_weights(merger: FrameMerger) -> Iterator[list[Tensor]]:
    """Within this, what the merger's tokens attend to, float[n, T, P] on the CPU for each of its calls, in order.

    Empty where the merger does not tell.  It is asked before each call with the state that the call's generator is in.
    """
    told: list[Tensor] = []

    def tell(module: FrameMerger, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        generator = named.get("generator")
        weights = module.token_weights(*inputs, **named | {"generator": generator and generator.clone_state()})
        if weights is not None:
            told.append(weights.cpu())

    handle = merger.register_forward_pre_hook(tell, with_kwargs=True)
    try:
        yield told
    finally:
        handle.remove()


@dataclass(frozen=True)
class Look:
    """What the model looked at for one question about a video.

    Attributes:
        question: with its evidence, and the right answer.
        times: float64[N], of the frames, in seconds.
        selection: the keyframes.
        weights: float[N - K, T, P] of the merged frames; None where the merger does not tell.
    """

    question: EncodedQuestion
    times: Tensor
    selection: Selection
    weights: Tensor | None

    @property
    def keyframes(self) -> list[int]:
        """Those that are shown."""
        return spread(self.selection.keyframes.tolist(), KEYFRAMES)

    @property
    def merged(self) -> list[int]:
        """The merged frames that are shown, of which up to half lie in the evidence."""
        times, evidence = self.times.tolist(), self.question.source.evidence
        merged = self._all_merged
        evident = [i for i in merged if any(start <= times[i] < end for start, end in evidence)]
        shown = set(spread(evident, MERGED // 2))
        return sorted(shown | set(spread([i for i in merged if i not in shown], MERGED - len(shown))))

    @property
    def _all_merged(self) -> list[int]:
        return sorted(set(range(len(self.times))) - set(self.selection.keyframes.tolist()))

    def sample(self, frames: Frames, answer: str, right: bool) -> Sample:
        """As the report has it.

        Args:
            frames: those that are shown at least.
            answer: what the model said.
            right: whether that is right.
        """
        source, relevance = self.question.source, self.selection.relevance
        keyframes, merged, row = self.keyframes, self.merged, {i: row for row, i in enumerate(self._all_merged)}
        return Sample(
            key=self.question.key,
            question=source.question[:MOST_LETTERS],
            kind=source.kind[:MOST_LETTERS],
            answer=answer[:MOST_LETTERS],
            right_answer=source.answer[:MOST_LETTERS],
            exact=right,
            evidence=list(source.evidence),
            times=[round(seconds, 2) for seconds in self.times.tolist()],
            relevance=None if relevance is None else [round(value, 4) for value in relevance.tolist()],
            keyframes=self.selection.keyframes.tolist(),
            stills=[
                Still(
                    i,
                    jpeg(frames[i].cpu().numpy()),
                    i in row,
                    _grid(self.weights[row[i]]) if i in row and self.weights is not None else None,
                )
                for i in sorted({*keyframes, *merged})
            ],
        )


Looked = tuple[Look, Frames]


def _sample(model: VideoLM, encode: PromptEncoder, single: Batch) -> Sample:
    """Ask the one question of a batch again, and look."""
    (question,), (video,) = single.questions, single.videos
    with told_weights(model.merger) as told:
        output = model(single)
    (selection,) = output.selections
    assert selection is not None
    answer = encode.decode(model.generate(single, MAX_ANSWER_TOKENS, encode.tokenizer.eos_token_id)[0])
    look = Look(question, video.timestamps, selection, torch.cat(told) if told else None)
    return look.sample(video.frames, answer, bool(output.exact[0]))


def _grid(weights: Tensor) -> list[list[float]] | None:
    """float[T, P] -> rows of the mean over T; None without a token, and where the patches are no square."""
    tokens, patches = weights.shape
    side = math.isqrt(patches)
    if not tokens or side * side != patches:
        return None
    return [[round(value, 5) for value in line] for line in weights.mean(dim=0).reshape(side, side).tolist()]


def _costs(model: VideoLM, single: Batch) -> list[Cost]:
    """Time and memory for the first quarter, the first half and all of the one video of a batch."""
    (video,) = single.videos
    lengths = sorted({max(1, len(video) * part // 4) for part in (1, 2, 4)})
    return [_cost(model, single, length) for length in lengths]


def _cost(model: VideoLM, single: Batch, length: int) -> Cost:
    (video,) = single.videos
    part = video.head(length)
    device = next(model.parameters()).device
    if on_gpu := device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    reset_peak_rss()
    start = time.perf_counter()
    model(Batch([part], single.questions, single.video_of))
    if on_gpu:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else peak_rss_gib()
    return Cost(length, round(seconds, 4), round(peak, 4), on_gpu)
