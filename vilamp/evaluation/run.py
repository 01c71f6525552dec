"""An evaluation from a configuration: ``evaluate(cfg)`` needs no command line and returns the result."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import torch
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import DataLoader

from vilamp.benchmark import Benchmark
from vilamp.build import build_object
from vilamp.data.workers import told_lost_workers
from vilamp.disk import RUN_FOLDER, writing_to
from vilamp.errors import ConfigError, DataError
from vilamp.evaluation.answers import Answer, AnswerFile, own_file, read_answers
from vilamp.evaluation.asking import LIKELIHOOD, Asker, Scoring
from vilamp.evaluation.identity import claim, identity, still_to_ask
from vilamp.evaluation.looking import look_closely
from vilamp.evaluation.result import FILE, result
from vilamp.evaluation.splicing import Splicer
from vilamp.evaluation.videos import Group, Videos, group
from vilamp.evaluation.writing import merge, write_json
from vilamp.report.make import make_report
from vilamp.samples import SkipSample, Video
from vilamp.training.console import without_remarks
from vilamp.training.interrupt import told_interrupts
from vilamp.training.loggers import log_report, log_scores
from vilamp.training.memory import peak_rss_gib, reset_peak_rss
from vilamp.training.ranks import first_rank, gather
from vilamp.training.run import Parts, configuration_of, restore, run_loggers
from vilamp.training.trained import read_trained

AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""``trainer.precision`` -> what autocast works in."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation left.

    Attributes:
        result: what stands in ``result.json``.
        answers: to all questions, in the order of the benchmark.
        folder: where both were written.
    """

    result: dict[str, Any]
    answers: list[Answer]
    folder: Path


def evaluate(cfg: DictConfig) -> Evaluation:
    """Ask a checkpoint the questions of a benchmark, or go on where an evaluation in the same folder was ended.

    With several processes (torchrun) each asks about every so many-th video.

    Args:
        cfg: as composed from ``conf/evaluate.yaml`` with a benchmark; null parts are those of the checkpoint's run.

    Raises:
        ConfigError: no such checkpoint, it does not fit, or the folder holds answers of another evaluation.
        DataError: the benchmark's files are missing, wrong or not whole, or none of its videos is there.
        OutputError: a full disk, or a folder that cannot be written.
        Interrupted: Ctrl-C.
        LostWorkerError: a process that reads the data has ended.
    """
    _check(cfg)
    trained = read_trained(str(cfg.checkpoint), "checkpoint")
    merged = configuration_of(cfg, trained)
    # Resolved before the data goes, of which it may take the shards.
    merged.benchmark = OmegaConf.create(OmegaConf.to_container(merged.benchmark, resolve=True))
    benchmark = build_object(merged.benchmark, Benchmark, "benchmark")
    items = benchmark.items()
    groups = group(items)
    if cfg.scoring == LIKELIHOOD and not any(item.options for item in items):
        raise ConfigError("scoring=likelihood needs questions with options, and this benchmark has none")
    _require_videos(groups)
    merged.data.val = merged.data.generate = None
    _follow(benchmark, merged, cfg)
    with _processes():
        parts = restore(merged, trained)
        folder = gather(parts.folder)[0]  # the others' own are temporary
        with _told(folder, parts.data.memory_settings), without_remarks(), ExitStack() as open_until_the_end:
            own = identity(parts.module.config, parts.module.model, items)
            if first_rank():
                claim(folder, own)
            _same_everywhere(own)
            loggers = open_until_the_end.enter_context(run_loggers(merged, parts))
            asker, splicer = _asker(parts, benchmark, merged), Splicer(parts.module.model, parts.data.reader)
            _ask_all(asker, splicer, groups, parts, folder)
            reports = gather(_memory())
            if not first_rank():
                return Evaluation({}, [], folder)
            answers = read_answers(folder)
            found = result(type(benchmark).__name__, benchmark, items, answers, own, parts.module.config)
            found |= {"memory": _highest(reports), "processes": len(reports)}
            in_order = [answers[item.key] for item in items]
            try:
                merge(folder, in_order)
                write_json(folder / FILE, found)
            finally:  # a disk may have become full, and the scores are there
                _show(found, folder, benchmark.shown_apart)
            log_scores(loggers, found["scores"])
            benchmark.finish(found, folder)
            if cfg.report:
                with _precision(parts, asker):
                    look_closely(asker, splicer, groups, answers).write(folder)
                report = make_report(folder)
                print(f"report: {report.file}")
                log_report(loggers, report)
    return Evaluation(found, in_order, folder)


def _check(cfg: DictConfig) -> None:
    if cfg.scoring not in get_args(Scoring):
        raise ConfigError(f"scoring must be {', '.join(get_args(Scoring))}, got {cfg.scoring!r}")
    if type(cfg.questions_at_once) is not int or cfg.questions_at_once < 1:
        raise ConfigError(f"questions_at_once must be a whole number of at least 1, got {cfg.questions_at_once!r}")
    if cfg.trainer.devices != 1:
        raise ConfigError(
            f"trainer.devices={cfg.trainer.devices}: one process of an evaluation uses one device; start several: "
            "torchrun --nproc-per-node N evaluate.py ..."
        )
    if cfg.trainer.precision not in AUTOCAST:
        raise ConfigError(f"trainer.precision must be {', '.join(AUTOCAST)}, got {cfg.trainer.precision!r}")


def _follow(benchmark: Benchmark, merged: DictConfig, cfg: DictConfig) -> None:
    """Sample as the questions want it; raise ConfigError where the command wants something else."""
    for name, value in benchmark.sampling().items():
        if cfg.get(name) not in (None, value):
            raise ConfigError(f"{name}={cfg[name]}, but the benchmark's questions are made for {value}; leave it out")
        merged.data[name] = value


def _require_videos(groups: Sequence[Group]) -> None:
    """Tell of missing videos before anything runs; raise DataError where all are missing."""
    about = [one for one in groups if one.video is not None]
    missing = [one for one in about if one.num_bytes is None]
    if not missing:
        return
    first = next(file.path for file in missing[0].files if not file.is_there)
    if len(missing) == len(about):
        raise DataError(
            f"none of the benchmark's {len(about)} videos is there, the first would be {first}; set the folder of the "
            "videos (benchmark.root or benchmark.videos)"
        )
    if first_rank():
        print(
            f"{len(missing)} of {len(about)} videos are missing, for example {first}: their "
            f"{sum(len(one.items) for one in missing)} questions count as wrong in accuracy, and are left out of "
            "accuracy_answered"
        )


@contextmanager
def _processes() -> Iterator[None]:
    """Within this the processes that torchrun started know each other.  One may wait for days for the slowest."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _told(folder: Path, memory_settings: str) -> Iterator[None]:
    def remains() -> str:
        return f"{len(read_answers(folder))} answers are in {folder}; with hydra.run.dir={folder} it goes on"

    workers = told_lost_workers(memory_settings, remains)
    with told_interrupts(remains), workers, writing_to({folder: RUN_FOLDER}):
        yield


def _same_everywhere(own: dict[str, Any]) -> None:
    """Raise ConfigError where another process evaluates something else; every process finds out."""
    every = gather({key: own[key] for key in ("version", "weights", "data")})
    for rank, other in enumerate(every):
        if other != every[0]:
            raise ConfigError(f"process {rank} has {other}, process 0 has {every[0]}: give all the same files")


def _asker(parts: Parts, benchmark: Benchmark, cfg: DictConfig) -> Asker:
    model = parts.module.model.eval().to(_device(cfg.trainer.accelerator))
    return Asker(model, parts.encode, benchmark, cfg.scoring, cfg.seed, cfg.questions_at_once)


def _device(accelerator: str) -> torch.device:
    if accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if accelerator not in ("gpu", "cuda", "auto") or not torch.cuda.is_available():
        raise ConfigError(f"trainer.accelerator={accelerator} is not there; trainer=cpu evaluates without a GPU")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _precision(parts: Parts, asker: Asker) -> AbstractContextManager[Any]:
    """What ``trainer.precision`` asks for."""
    precision = AUTOCAST[parts.module.config["trainer"]["precision"]]
    device = asker.model.scorer.preprocess.mean.device
    return torch.autocast(device.type, precision) if precision else nullcontext()


def _ask_all(asker: Asker, splicer: Splicer, groups: Sequence[Group], parts: Parts, folder: Path) -> None:
    """Ask this process' share of what has no answer yet, and write every answer as it comes."""
    before = read_answers(folder)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    shares = [(one, {item.key for item in still_to_ask(one, before)}) for one in groups[rank::world]]
    mine = [(one, pending) for one, pending in shares if pending]
    loader = DataLoader(
        Videos([one for one, _ in mine], parts.data.reader),
        batch_size=None,
        num_workers=parts.data.num_workers,
        prefetch_factor=1 if parts.data.num_workers else None,  # a video can be gigabytes of frames
    )
    reset_peak_rss()
    begin = time.perf_counter()
    with closing(AnswerFile(own_file(folder, rank))) as file:
        for (one, pending), video in zip(mine, track(loader, "answering", len(mine), disable=rank > 0), strict=True):
            with _precision(parts, asker):
                # All its questions, also where some have an answer: those asked together give the same bits again.
                answers = splicer.answers(asker, one) if one.is_haystack else _answer(asker, one, video)
            now = time.perf_counter()
            share, begin = (now - begin) / len(answers), now
            file.append(
                replace(answer, video=answer.video or one.name, video_bytes=one.num_bytes, seconds=round(share, 4))
                for answer in answers
                if answer.key in pending
            )


def _answer(asker: Asker, one: Group, video: Video | SkipSample | None) -> list[Answer]:
    if isinstance(video, SkipSample):
        return [Answer(item.key, None, reason=video.reason, detail=video.detail) for item in one.items]
    return asker(one.items, video)


def _memory() -> dict[str, float]:
    figures = {"peak_rss_gib": peak_rss_gib()}
    if torch.cuda.is_available():
        figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return figures


def _highest(reports: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(max(report[name] for report in reports), 3) for name in reports[0]}


def _show(found: dict[str, Any], folder: Path, shown_apart: str | None) -> None:
    table = Table("score", *found["scores"], title=f"{found['benchmark']}, {folder}")
    names = dict.fromkeys(name for figures in found["scores"].values() for name in figures)
    names = {name: None for name in names if shown_apart is None or not name.startswith(shown_apart)}
    for name in sorted(names, key=lambda name: name != found["headline"]):
        cells = [figures.get(name) for figures in found["scores"].values()]
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in cells))
    console = Console()
    console.print(table)
    counts = found["counts"]
    console.print(f"{counts['asked']} of {counts['questions']} questions were asked; {counts['not_asked'] or ''}")
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)
