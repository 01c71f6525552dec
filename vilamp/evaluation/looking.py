"""Looks at a few questions of an evaluation closely, for its report, when all of them are answered.

Their videos are read once more, each once for all of its questions.  So it makes no difference to what is shown whether
the evaluation was killed in between, and how many processes shared it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from vilamp.benchmark import LETTERS, Item
from vilamp.evaluation.answers import Answer
from vilamp.evaluation.asking import GENERATION, LIKELIHOOD, Asker
from vilamp.evaluation.splicing import Splicer
from vilamp.evaluation.videos import Group, Videos
from vilamp.report.samples import Sample, Samples
from vilamp.samples import Batch, Question, SkipSample
from vilamp.training.showing import Look, Looked, Wanted, told_weights


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
    for one in _chosen(groups, answers):
        looks = splicer.look(asker, one.items) if one.is_haystack else _look(asker, splicer, one)
        for item, look in zip(one.items, looks, strict=True):
            if isinstance(look, SkipSample):  # it could be read when it was asked about
                unseen += 1
            else:
                samples.append(_sample(item, look, answers[item.key]))
    return Samples(samples, unseen=unseen)


def _chosen(groups: Sequence[Group], answers: Mapping[str, Answer]) -> list[Group]:
    """The videos with those questions that are looked at, each once; a haystack may have several groups."""
    chosen: dict[object, Group] = {}
    wanted = Wanted()
    for one in groups:
        # Nothing says whether an open question was answered right by likelihood alone.
        judged = [item for item in one.items if one.video is not None and answers[item.key].right]
        # A needle stands for the video: there are few haystacks.
        items = [item for item in judged if wanted.takes(answers[item.key].video, _is_right(answers[item.key]))]
        if items:
            before = chosen[one.video].items if one.video in chosen else ()
            chosen[one.video] = replace(one, items=(*before, *items))
        if wanted.nothing_more:
            break
    return list(chosen.values())


def _is_right(answer: Answer) -> bool:
    return answer.right[GENERATION if GENERATION in answer.right else LIKELIHOOD]


@torch.no_grad()
def _look(asker: Asker, splicer: Splicer, one: Group) -> list[Looked | SkipSample]:
    video = Videos([one], splicer.reader)[0]
    if isinstance(video, SkipSample):
        return [video for _ in one.items]
    assert video is not None  # questions about text alone are not looked at
    looks: list[Looked | SkipSample] = []
    for item in one.items:
        question = asker.encoded(item, video)
        with told_weights(asker.model.merger) as told:
            _, (selection,) = asker.model.see(Batch([video], [question], [0]))
        assert selection is not None
        look = Look(question, video.timestamps, selection, torch.cat(told) if told else None)
        looks.append((look, video.frames))
    return looks


def _sample(item: Item, looked: Looked, answer: Answer) -> Sample:
    look, frames = looked
    kind = ", ".join(f"{grouping} {' and '.join(names)}" for grouping, names in item.groups.items())
    told = Question(_with_options(item), " or ".join(_right(item)), "", kind, item.evidence)
    return replace(look, question=replace(look.question, source=told)).sample(
        frames, _said(item, answer), _is_right(answer)
    )


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
