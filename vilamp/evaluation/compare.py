"""Runs side by side: what differs in their settings, their figures, and whether answers differ beyond chance.

Needs no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vilamp.errors import DataError
from vilamp.evaluation.answers import Answer, read_answers
from vilamp.evaluation.statistics import by_videos, mcnemar, wilson
from vilamp.training.answers import read_right

RESULT, METRICS = "result.json", "metrics.json"
NO_SETTINGS = {
    *("paths", "logger", "hydra", "checkpoint", "resume", "experiment", "report"),
    *("data.generate.root", "data.generate.num_workers", "data.generate.progress", "data.cache_dir", "data.frames_dir"),
}
"""Of a configuration what is no part of a comparison: where things lie and what is told."""
NO_SETTINGS_OF_EVALUATION = {"trainer", "optim", "scoring", "questions_at_once", "lora", "init"}
"""Of the configuration of an evaluation, likewise: how it was run, and how its checkpoint was trained."""
OF_TRAINING = {
    "accuracy": ("val/accuracy",),
    "questions": ("val/questions",),
    "keyframe_recall": ("val/keyframe_recall",),
    "visual_tokens": ("visual_tokens",),
    "memory_gib": ("memory/peak_gib", "memory/peak_rss_gib"),  # the GPU's, else the process'
    "seconds": ("throughput/seconds",),
}
"""Column -> its names in ``metrics.json``, of which the first that is there is taken."""
WEIGHTS_OF = re.compile(r"model\.\w+\.path")
"""Settings that say where weights lie; what they are, an evaluation knows by their hash."""
KINDS = "accuracy/"
"""How the columns begin that hold the accuracy of one kind of question."""


@dataclass(frozen=True)
class Run:
    """One row: a training run, or one way of answering of an evaluation.

    Attributes:
        name: its folder, and the way.
        settings: flat.
        figures: column -> value.
        way: ``generation`` or ``likelihood``; empty for a training run.
        weights: the hash of all of them; empty for a training run.
        questions: what tells the set of questions.
        right: key of a question -> whether it is right; empty for a run from before these were kept.
    """

    name: str
    settings: dict[str, Any]
    figures: dict[str, float]
    way: str = ""
    weights: str = ""
    questions: tuple[Any, ...] = ()
    right: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Two runs over the questions that both have.

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
    found = {column: [metrics[name] for name in names if name in metrics] for column, names in OF_TRAINING.items()}
    figures = {column: values[0] for column, values in found.items() if values}
    figures |= {name.removeprefix("val/"): value for name, value in metrics.items() if name.startswith(f"val/{KINDS}")}
    right = read_right(folder)
    if "questions" in figures:
        total = int(figures["questions"])
        figures |= _interval(wilson(figures["accuracy"] * total, total))
    if right:
        low, high = by_videos(list(right.values()), [key.rpartition("/")[0] for key in right])
        figures |= {"low_by_videos": low, "high_by_videos": high}
    file = folder / "config.yaml"
    settings = dict(_flat(OmegaConf.to_container(OmegaConf.load(file), resolve=False))) if file.is_file() else {}
    return Run(str(folder), settings, figures, questions=_validated(settings), right=right)


def _validated(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides which questions a validation asks."""
    shards = settings.get("data.val")
    made = {key: value for key, value in settings.items() if key.startswith("data.generate.")}
    return ("validation", str(made if shards is None else shards))


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
            weights=result.get("hashes", {}).get("weights", ""),
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
    figures |= {name: value for name, value in scores.items() if name.startswith(KINDS)}
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
        name = f"{prefix}{key}"
        if name in NO_SETTINGS:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Settings that all runs have and that are not the same in all -> their values.

    Of a part that is another one its name (:func:`_part`) stands for all its settings.  Where weights lie is no
    difference if they are the same: of runs with one hash the first one's path stands for those of all.
    """
    shared = [key for key in runs[0].settings if all(key in run.settings for run in runs)]
    columns = {key: [run.settings[key] for run in runs] for key in shared}
    for key in filter(WEIGHTS_OF.fullmatch, shared):
        first: dict[str, Any] = {}
        columns[key] = [
            first.setdefault(run.weights, path) if run.weights else path
            for run, path in zip(runs, columns[key], strict=True)
        ]
    differing = {key: values for key, values in columns.items() if any(value != values[0] for value in values)}
    classes = {key.removesuffix("_target_") for key in differing if key.endswith("._target_")}
    found = {}
    for key, values in differing.items():
        if key.endswith("._target_"):
            group = key.removesuffix("._target_")
            found[group] = [_part(group, str(value)) for value in values]
        elif not key.startswith(tuple(classes)):
            found[key] = values
    return found


def _part(group: str, target: str) -> str:
    """The name of a class; ``DifferentialSelector`` as a selector is ``differential``, as on the command line."""
    name = target.rpartition(".")[2]
    short = name.removesuffix(group.title())
    return name if short in ("", name) else short.lower()


def pairs(runs: Sequence[Run], against: str | None = None) -> list[Pair]:
    """Runs beside those that they are tested against.

    Only runs over the same questions (benchmark and split, or validation set) and the same way of answering are paired.
    Where one question is about the same thing in both, its key is the same.  A question that was not asked is wrong.

    Args:
        runs: in their order.
        against: ``SETTING=VALUE``: each run is tested against the one that has this and else the same settings; None
            tests each against the first.

    Raises:
        DataError: no run has that setting.
    """
    partners = _firsts(runs) if against is None else _like(runs, *against.split("=", 1))
    found = []
    for first, run in partners:
        common = first.right.keys() & run.right.keys()
        if common:
            ahead = sum(first.right[key] and not run.right[key] for key in common)
            behind = sum(run.right[key] and not first.right[key] for key in common)
            found.append(Pair(first.name, run.name, len(common), ahead, behind, mcnemar(ahead, behind)))
    return found


def _firsts(runs: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    firsts: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        first = firsts.setdefault((*run.questions, run.way), run)
        if first is not run:
            yield first, run


def _like(runs: Sequence[Run], setting: str, value: str = "") -> Iterator[tuple[Run, Run]]:
    """Of each run and the one that differs from it in one setting alone, in which that has a given value."""
    differing = differing_settings(runs)
    if value not in map(str, differing.get(setting, ())):
        told = "; ".join(f"{key}={','.join(dict.fromkeys(map(str, values)))}" for key, values in differing.items())
        raise DataError(f"--against {setting}={value}: the runs do not differ in this, but in {told or 'nothing'}")
    others = [key for key in differing if key != setting]
    alike = [(*run.questions, run.way, *(str(differing[key][i]) for key in others)) for i, run in enumerate(runs)]
    has = [str(one) == value for one in differing[setting]]
    bases = {key: run for key, run, base in zip(alike, runs, has, strict=True) if base}
    for key, run, base in zip(alike, runs, has, strict=True):
        if not base and key in bases:
            yield bases[key], run
