"""Runs side by side: what differs in their settings, their figures, and whether answers differ beyond chance.

Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vilamp.errors import DataError
from vilamp.evaluation.answers import Answer, read_answers
from vilamp.evaluation.statistics import by_videos, mcnemar, wilson

RESULT, METRICS = "result.json", "metrics.json"
NO_SETTINGS = {"paths", "logger", "hydra", "checkpoint", "resume", "experiment"}
"""Of a configuration what is no part of a comparison: where things lie and what is told."""
NO_SETTINGS_OF_EVALUATION = {"trainer", "optim", "scoring", "questions_at_once", "lora", "init"}
"""Of the configuration of an evaluation, likewise: how it was run, and how its checkpoint was trained."""
OF_TRAINING = {
    "accuracy": "val/accuracy",
    "keyframe_recall": "val/keyframe_recall",
    "visual_tokens": "visual_tokens",
    "seconds": "throughput/seconds",
}
"""Column -> its name in ``metrics.json``; memory and interval come from several."""
MEMORY = ("memory/peak_gib", "memory/peak_rss_gib")
"""Where memory is looked for: the GPU's, else the process'."""


@dataclass(frozen=True)
class Run:
    """One row: a training run, or one way of answering of an evaluation.

    Attributes:
        name: its folder, and the way.
        settings: flat.
        figures: column -> value.
        way: ``generation`` or ``likelihood``; empty for a training run.
        questions: what tells the set of questions; None for a training run, which leaves no answers.
        right: key of a question -> whether it is right.
    """

    name: str
    settings: dict[str, Any]
    figures: dict[str, float]
    way: str = ""
    questions: tuple[Any, ...] | None = None
    right: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Two evaluations over the questions that both have.

    Attributes:
        first, second: names.
        common: questions of both.
        only_first, only_second: right in one of them alone.
        p: of McNemar's exact test.
    """

    first: str
    second: str
    common: int
    only_first: int
    only_second: int
    p: float


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs in some folders, in their order; a folder of a sweep stands for all of its runs.

    Raises:
        DataError: there is no run, or one that has not ended.
    """
    return [run for path in paths for folder in _folders(path) for run in _read(folder)]


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise DataError(f"{path} is no folder; name those of runs (outputs/DAY/TIME)")
    if _ended(path):
        return [path]
    within = sorted(
        (file.parents[1] for file in path.glob("*/.hydra/config.yaml")), key=lambda one: (len(one.name), one)
    )
    unfinished = [folder.name for folder in within if not _ended(folder)]
    if unfinished:
        raise DataError(f"{path}: neither {RESULT} nor {METRICS} in {', '.join(unfinished)}; these runs did not end")
    if not within:
        raise DataError(f"{path} holds neither {RESULT} nor {METRICS}: no run ended there")
    return within


def _ended(folder: Path) -> bool:
    return (folder / RESULT).is_file() or (folder / METRICS).is_file()


def _read(folder: Path) -> list[Run]:
    try:
        return _evaluation(folder) if (folder / RESULT).is_file() else [_training(folder)]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} cannot be read: {type(error).__name__}: {error}") from error


def _training(folder: Path) -> Run:
    metrics = json.loads((folder / METRICS).read_text())
    figures = {column: metrics[name] for column, name in OF_TRAINING.items() if name in metrics}
    if "val/questions" in metrics:
        total = int(metrics["val/questions"])
        figures |= {"questions": total, **_interval(wilson(metrics["val/accuracy"] * total, total))}
    memory = [metrics[name] for name in MEMORY if name in metrics]
    figures |= {"memory_gib": memory[0]} if memory else {}
    file = folder / "config.yaml"
    config = OmegaConf.to_container(OmegaConf.load(file), resolve=False) if file.is_file() else {}
    return Run(str(folder), dict(_flat(config)), figures)


def _evaluation(folder: Path) -> list[Run]:
    result = json.loads((folder / RESULT).read_text())
    answers = list(read_answers(folder).values())
    settings = dict(_flat({key: v for key, v in result["config"].items() if key not in NO_SETTINGS_OF_EVALUATION}))
    of_set = (result["benchmark"], settings.get("benchmark.split"))
    return [
        Run(
            name=f"{folder} ({result['benchmark']}, {way})",
            settings=settings,
            figures=_of_evaluation(result, way, [answer for answer in answers if _counts(answer, way)]),
            way=way,
            questions=of_set,
            right={answer.key: answer.right.get(way, False) for answer in answers if _counts(answer, way)},
        )
        for way in result["scores"]
    ]


def _counts(answer: Answer, way: str) -> bool:
    """Whether an answer is one of this way; a question that was not asked is wrong in all."""
    return not answer.asked or way in answer.right


def _of_evaluation(result: Mapping[str, Any], way: str, answers: Sequence[Answer]) -> dict[str, float]:
    rights = [answer.right.get(way, False) for answer in answers]
    scores, sampling = result["scores"][way], result["sampling"]
    low, high = by_videos(rights, [answer.video for answer in answers])
    figures = {result["headline"]: scores[result["headline"]], "accuracy": scores["accuracy"]}
    figures |= {"questions": len(rights), **_interval(wilson(sum(rights), len(rights)))}
    figures |= {"low_by_videos": low, "high_by_videos": high, "not_asked": sum(not a.asked for a in answers)}
    figures |= {name: sampling[name] for name in ("keyframe_recall", "visual_tokens") if name in sampling}
    if "frames" in sampling:
        figures["frames"] = sampling["frames"]["mean"]
    memory = result["memory"]
    return figures | {"memory_gib": memory.get("peak_gib", memory["peak_rss_gib"]), "seconds": result["seconds"]}


def _interval(ends: tuple[float, float]) -> dict[str, float]:
    return {"low": ends[0], "high": ends[1]}


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if not prefix and key in NO_SETTINGS:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Settings that all runs have and that are not the same in all -> their values.

    Of a part that is another one the name of its class stands for all its settings.
    """
    shared = [key for key in runs[0].settings if all(key in run.settings for run in runs)]
    columns = {key: [run.settings[key] for run in runs] for key in shared}
    differing = {key: values for key, values in columns.items() if any(value != values[0] for value in values)}
    classes = {key.removesuffix("_target_") for key in differing if key.endswith("._target_")}
    found = {}
    for key, values in differing.items():
        if key.endswith("._target_"):
            found[key.removesuffix("._target_")] = [str(value).rpartition(".")[2] for value in values]
        elif not key.startswith(tuple(classes)):
            found[key] = values
    return found


def pairs(runs: Sequence[Run]) -> list[Pair]:
    """Each evaluation beside the first of the same benchmark, split and way of answering.

    Where one question is about the same thing in both, its key is the same.  A question that was not asked is wrong.
    """
    firsts: dict[tuple[Any, ...], Run] = {}
    found = []
    for run in runs:
        if run.questions is None:
            continue
        first = firsts.setdefault((*run.questions, run.way), run)
        common = first.right.keys() & run.right.keys()
        if first is run or not common:
            continue
        ahead = sum(first.right[key] and not run.right[key] for key in common)
        behind = sum(run.right[key] and not first.right[key] for key in common)
        found.append(Pair(first.name, run.name, len(common), ahead, behind, mcnemar(ahead, behind)))
    return found
