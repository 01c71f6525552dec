"""Looks at a few questions of an evaluation closely, for its report, when all of them are answered.

Their videos are read once more, one at a time.  So it makes no difference to what is shown whether the evaluation was
killed in between, and how many processes shared it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vilamp.benchmark import LETTERS, Item
from vilamp.evaluation.answers import Answer
from vilamp.evaluation.asking import GENERATION, LIKELIHOOD, Asker
from vilamp.evaluation.splicing import Splicer
from vilamp.evaluation.videos import Group, Videos
from vilamp.frame_file import FrameFile
from vilamp.report.samples import Sample, Samples
from vilamp.samples import Batch, Question, SkipSample, Video
from vilamp.training.showing import Look, Wanted, told_weights


def look_closely(asker: Asker, splicer: Splicer, groups: Sequence[Group], answers: Mapping[str, Answer]) -> Samples:
    """Some questions with a right and some with a wrong answer, the first ones that the model was asked.

    What is right is told by the generated answer, where there is one.

    Args:
        asker: asks.
        splicer: reads what is spliced, and with its reader all else.
        groups: of the benchmark.
        answers: to its questions.
    """
    samples, unseen = [], 0
    for one, items in _chosen(groups, answers):
        video = None if one.is_haystack else Videos([one], splicer.reader)[0]
        for item in items:
            try:
                samples.append(_sample(asker, splicer, item, video, answers[item.key]))
            except SkipSample:  # it could be read when it was asked about
                unseen += 1
    return Samples(samples, unseen=unseen)


def _chosen(groups: Sequence[Group], answers: Mapping[str, Answer]) -> Iterator[tuple[Group, list[Item]]]:
    wanted = Wanted()
    for one in groups:
        asked = [item for item in one.items if one.video is not None and answers[item.key].asked]
        # A needle stands for the video: there are few haystacks.
        items = [item for item in asked if wanted.takes(answers[item.key].video, _is_right(answers[item.key]))]
        if items:
            yield one, items
        if wanted.nothing_more:
            return


def _is_right(answer: Answer) -> bool:
    return answer.right[GENERATION if GENERATION in answer.right else LIKELIHOOD]


@torch.no_grad()
def _sample(asker: Asker, splicer: Splicer, item: Item, video: Video | SkipSample | None, answer: Answer) -> Sample:
    if isinstance(video, SkipSample):
        raise video
    look, frames = splicer.look(asker, item) if video is None else _look(asker, item, video)
    kind = ", ".join(f"{grouping} {' and '.join(names)}" for grouping, names in item.groups.items())
    told = Question(_with_options(item), " or ".join(_right(item)), "", kind, item.evidence)
    return replace(look, question=replace(look.question, source=told)).sample(
        frames, _said(item, answer), _is_right(answer)
    )


def _look(asker: Asker, item: Item, video: Video) -> tuple[Look, Tensor | FrameFile]:
    question = asker.encoded(item, video)
    with told_weights(asker.model.merger) as told:
        _, (selection,) = asker.model.see(Batch([video], [question], [0]))
    assert selection is not None
    return Look(question, video.timestamps, selection, torch.cat(told) if told else None), video.frames


def _said(item: Item, answer: Answer) -> str:
    if answer.text is not None:
        return answer.text
    scores = answer.log_likelihoods or []
    return _option(item, max(range(len(scores)), key=scores.__getitem__))


def _right(item: Item) -> list[str]:
    return [_option(item, number) for number in item.gold] if item.options else [item.answer]


def _with_options(item: Item) -> str:
    return "\n".join([item.question, *(_option(item, number) for number in range(len(item.options)))])


def _option(item: Item, number: int) -> str:
    """With its letter, which some benchmarks have in the text."""
    letter, option = f"{LETTERS[number]}. ", item.options[number]
    return option if option.startswith(letter) else letter + option
