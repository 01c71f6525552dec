"""``result.json``: the scores, and everything that produced them."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from vilamp import __version__
from vilamp.benchmark import Benchmark, Item
from vilamp.evaluation.answers import Answer
from vilamp.evaluation.asking import LIKELIHOOD, Scoring, grade, ways
from vilamp.evaluation.identity import videos_hash

FILE = "result.json"
LIBRARIES = ("torch", "transformers", "lightning", "av", "numpy")
DIGITS = 6


def scores(
    benchmark: Benchmark, items: Sequence[Item], answers: Mapping[str, Answer], scoring: Scoring
) -> dict[str, dict[str, float]]:
    """The figures of each way of answering; of one that no question has there are none."""
    found = {}
    for way in ways(scoring):
        graded = [one for item in items if (one := grade(benchmark, item, answers[item.key], way)) is not None]
        if graded:
            found[way] = {name: round(value, DIGITS) for name, value in benchmark.figures(graded).items()}
    return found


def counts(benchmark: Benchmark, items: Sequence[Item], answers: Mapping[str, Answer]) -> dict[str, Any]:
    """How many questions and videos there were, and what went wrong with how many."""
    all_answers = [answers[item.key] for item in items]
    reasons = Counter(answer.reason for answer in all_answers if answer.reason)
    unreadable = sum(
        not benchmark.judge(item, text).readable for item in items if (text := answers[item.key].text) is not None
    )
    return {
        "questions": len(items),
        "asked": sum(answer.asked for answer in all_answers),
        "not_asked": dict(sorted(reasons.items())),
        "videos": len({answer.video for answer in all_answers} - {None}),
        "unreadable_answers": unreadable,
        "queries_cut": sum(answer.query_cut for answer in all_answers),
        "gaps": sum({answer.video: answer.gaps for answer in all_answers}.values()),
    }


def sampling(config: Mapping[str, Any], answers: Sequence[Answer]) -> dict[str, Any]:
    """What the model saw: the settings, and what became of them."""
    data = config["data"]
    seen = [answer for answer in answers if answer.frames]
    settings = {"fps": data["fps"], "max_frames": data["max_frames"], "frame_size": data["frame_size"]}
    settings |= {"sampling": data["sampling"], "num_keyframes": config["num_keyframes"]}
    if not seen:
        return settings
    frames = [count for count, _ in sorted({(answer.frames, str(answer.video)) for answer in seen})]
    recalls = [answer.recall for answer in seen if answer.recall is not None]
    return settings | {
        "frames": {"least": frames[0], "most": frames[-1], "mean": _mean(frames)},
        "keyframes": _mean([len(answer.keyframes) for answer in seen]),
        "visual_tokens": _mean([answer.visual_tokens for answer in seen]),
        **({"keyframe_recall": _mean(recalls)} if recalls else {}),
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), DIGITS)


def notes(benchmark: Benchmark, items: Sequence[Item], scoring: Scoring) -> list[str]:
    """Those of the benchmark, and what part of the questions has options whose likelihood is scored."""
    scored = sum(bool(item.options) for item in items)
    if LIKELIHOOD in ways(scoring) and 0 < scored < len(items):
        return [*benchmark.notes, f"likelihood: over the {scored} of {len(items)} questions that have options"]
    return benchmark.notes


def result(
    name: str,
    benchmark: Benchmark,
    items: Sequence[Item],
    answers: Mapping[str, Answer],
    own: Mapping[str, Any],
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """All of the file but memory and processes.

    Args:
        name: of the benchmark.
        benchmark: after ``items`` has filled its notes.
        items: the questions.
        answers: to all of them.
        own: the identity of the evaluation.
        config: of the evaluation, as :func:`vilamp.build.portable` gives it.
    """
    in_order = [answers[item.key] for item in items]
    return {
        "benchmark": name,
        "headline": benchmark.headline,
        "scores": scores(benchmark, items, answers, config["scoring"]),
        "counts": counts(benchmark, items, answers),
        "sampling": sampling(config, in_order),
        "notes": notes(benchmark, items, config["scoring"]),
        "seed": config["seed"],
        "hashes": {"weights": own["weights"], "data": own["data"], "videos": videos_hash(in_order)},
        "versions": {"vilamp": __version__, "python": platform.python_version()}
        | {library: version(library) for library in LIBRARIES},
        "seconds": round(sum(answer.seconds for answer in in_order), 3),
        "config": config,
    }
