"""Looks at a few validation questions closely, for the report: what was selected, and what the merger looked at."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from vilamp.interfaces import FrameMerger, Selection
from vilamp.models.text import PromptEncoder
from vilamp.models.video_lm import VideoLM
from vilamp.report.samples import KEYFRAMES, Cost, Sample, Samples, Still, jpeg, spread
from vilamp.samples import Batch, EncodedQuestion, Video
from vilamp.training.memory import peak_rss_gib, reset_peak_rss

EACH = 3
"""So many questions with a right and with a wrong answer are shown, if the batches that are searched have them.

Of one video at most one of each.
"""
BATCHES = 8
"""Of the validation set, from its start, in which they are searched."""
MERGED = 8
"""Most merged frames of a question that are shown."""
LETTERS = 2000
"""Of a text; a longer one is cut off."""
MAX_ANSWER_TOKENS = 32


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
    verdicts: Counter[bool] = Counter()
    for batch in islice(batches, BATCHES):
        asked = [i for i, video in enumerate(batch.video_of) if video >= 0]
        exact = model(batch).exact.tolist()
        if asked and not costs:
            longest = max(asked, key=lambda i: len(batch.videos[batch.video_of[i]]))
            costs = _costs(model, batch.only(longest))
        seen: set[tuple[int, bool]] = set()
        for index in asked:
            verdict = exact[index]
            of_video = (batch.video_of[index], verdict)
            if verdicts[verdict] < EACH and of_video not in seen:
                seen.add(of_video)
                verdicts[verdict] += 1
                found.append(_sample(model, encode, batch.only(index)))
        if verdicts[True] >= EACH and verdicts[False] >= EACH:
            break
    return Samples(found, costs)


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


def _sample(model: VideoLM, encode: PromptEncoder, single: Batch) -> Sample:
    """Ask the one question of a batch again, and look."""
    (question,), (video,) = single.questions, single.videos
    with told_weights(model.merger) as told:
        output = model(single)
    (selection,) = output.selections
    assert selection is not None
    answer = encode.decode(model.generate(single, MAX_ANSWER_TOKENS, encode.tokenizer.eos_token_id)[0])
    source, relevance = question.source, selection.relevance
    return Sample(
        key=question.key,
        question=source.question[:LETTERS],
        kind=source.kind[:LETTERS],
        answer=answer[:LETTERS],
        right_answer=source.answer[:LETTERS],
        exact=bool(output.exact[0]),
        evidence=list(source.evidence),
        times=[round(seconds, 2) for seconds in video.timestamps.tolist()],
        relevance=None if relevance is None else [round(value, 4) for value in relevance.tolist()],
        keyframes=selection.keyframes.tolist(),
        stills=_stills(video, question, selection, torch.cat(told) if told else None),
    )


def _stills(video: Video, question: EncodedQuestion, selection: Selection, weights: Tensor | None) -> list[Still]:
    """Keyframes, and merged frames of which up to half lie in the evidence.

    Args:
        video: the frames.
        question: with its evidence.
        selection: the keyframes.
        weights: float[N - K, T, P] of the merged frames, or None.
    """
    keyframes = selection.keyframes.tolist()
    merged = sorted(set(range(len(video))) - set(keyframes))
    times = video.timestamps.tolist()
    evident = [i for i in merged if any(start <= times[i] < end for start, end in question.source.evidence)]
    shown = set(spread(evident, MERGED // 2))
    shown |= set(spread([i for i in merged if i not in shown], MERGED - len(shown)))
    row = {frame: number for number, frame in enumerate(merged)}
    return [
        Still(
            i,
            jpeg(video.frames[i].cpu().numpy()),
            i in shown,
            _grid(weights[row[i]]) if i in shown and weights is not None else None,
        )
        for i in sorted({*shown, *spread(keyframes, KEYFRAMES)})
    ]


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
