"""A run from a configuration: ``train(cfg)`` and ``evaluate(cfg)`` need no command line and return their objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from vilamp.build import build_data, build_encoder, build_model, build_object, build_optim, plain, portable
from vilamp.data.module import VideoDataModule
from vilamp.data.workers import told_lost_workers
from vilamp.disk import RUN_FOLDER, writing_to
from vilamp.errors import ConfigError
from vilamp.models.checkpoint import Report as InitReport
from vilamp.models.lora import adapted_models
from vilamp.models.precision import hold, precision
from vilamp.models.text import PromptEncoder
from vilamp.report.make import make_report
from vilamp.samples import Batch
from vilamp.training.answers import write_right
from vilamp.training.callbacks import ResourceMonitor, SkipReport
from vilamp.training.checkpoints import BEST, LAST, BestCheckpoint, LastCheckpoint, WholeFiles
from vilamp.training.console import without_remarks
from vilamp.training.decode_report import DecodeReport
from vilamp.training.interrupt import told_interrupts
from vilamp.training.loggers import log_report, open_loggers
from vilamp.training.module import VideoQA
from vilamp.training.parts import parts_table, trained_share, what_trains
from vilamp.training.preemption import Preemption
from vilamp.training.ranks import first_rank, told_losses
from vilamp.training.resume import find_start
from vilamp.training.sharding import FullyShard, load_weights
from vilamp.training.showing import show
from vilamp.training.skip_limit import SkipLimit
from vilamp.training.trained import Trained, read_trained, write_adapter

READ_VARIANT = {"selector", "merger", "model"}
"""The groups whose files take values from the variant."""


@dataclass(frozen=True)
class Run:
    """The objects of a run, and its final figures.

    Attributes:
        metrics: what stands in ``metrics.json``.
        folder: where everything was written.
    """

    module: VideoQA
    data: VideoDataModule
    encode: PromptEncoder
    trainer: Trainer
    metrics: dict[str, float]
    folder: Path


@dataclass(frozen=True)
class Parts:
    """What training and evaluations need, before anything runs."""

    module: VideoQA
    data: VideoDataModule
    encode: PromptEncoder
    resources: ResourceMonitor
    skips: SkipReport
    decoding: DecodeReport
    folder: Path

    @property
    def watchers(self) -> list[Callback]:
        """What looks at every batch.  The limit comes last, since it ends the run when all is counted and listed."""
        return [self.decoding, self.skips, SkipLimit(self.skips.file)]


def train(cfg: DictConfig) -> Run:
    """Train, validate before, in between and after, and write the run's folder; or go on with a run that broke off.

    ``metrics.json`` holds the validation metrics of the best checkpoint, the accuracy before training
    (``val/accuracy_before``), and the run's resources.

    Args:
        cfg: as composed from ``conf/train.yaml``.

    Raises:
        ConfigError: something in the configuration does not exist or does not fit together.
        DataError: the data cannot be used at all.
        OutputError: a full disk, or a folder that cannot be written.
        Interrupted: Ctrl-C.
        Preempted: SIGTERM; after a checkpoint of the last step.
        LostRankError: another process of the run has ended.
        LostWorkerError: a process that reads the data has ended.
    """
    parts = _prepare(cfg)
    parts.data.require("train")
    trained = what_trains(parts.module.model, parts.module.optim)
    if first_rank():
        Console().print(parts_table(trained))
    checkpoints, preemption = parts.folder / "checkpoints", Preemption()
    stops = preemption.heeded(partial(_remains, parts))
    with _told(parts), stops, told_losses(), without_remarks(), ExitStack() as open_until_the_end:
        start = find_start(cfg.resume, checkpoints, parts.module.config)
        if start.path is not None:
            parts.skips.read_back()
        loggers = open_until_the_end.enter_context(run_loggers(cfg, parts, start.steps))
        best = BestCheckpoint(checkpoints, inherits=start.best)
        last = LastCheckpoint(checkpoints, cfg.checkpoint.every_n_steps, preemption, keeps_best=start.best)
        saving = [best, last] if parts.data.validates else [last]
        trainer = _trainer(cfg, parts, loggers, [parts.resources, *parts.watchers, RichProgressBar(), *saving])
        history = parts.module.history
        with preemption.deferred(trainer):
            if parts.data.validates and start.path is None:
                trainer.validate(parts.module, parts.data, verbose=False)
            trainer.fit(parts.module, parts.data, ckpt_path=start.path, weights_only=True)
            # It ended before its first validation (trainer.max_steps): these are the only weights that trained.
            late = parts.data.validates and len(history) == 1 and history[0]["step"] < trainer.global_step
            if late:
                trainer.validate(parts.module, parts.data, verbose=False)
        if late:
            trainer.save_checkpoint(checkpoints / BEST)
        elif best.best_model_path:
            checkpoint = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
            load_weights(parts.module, checkpoint["state_dict"])
        if adapted_models(parts.module.model):
            write_adapter(parts.module.model, parts.module.trained_names(), parts.module.config, parts.folder)
        figures = _of_training(parts.module) | parts.resources.measure()
        return _finish(parts, trainer, loggers, figures | {"model/trained_share": trained_share(trained)})


def _of_training(module: VideoQA) -> dict[str, float]:
    """The best validation since the first step, and the accuracy before it."""
    if not module.history:
        return {}
    return module.best() | {"val/accuracy_before": module.history[0]["val/accuracy"]}


def evaluate(cfg: DictConfig) -> Run:
    """Score a checkpoint on the validation set of its own run, or on another.

    Args:
        cfg: as composed from ``conf/evaluate.yaml``; null parts are those of the checkpoint's run.

    Raises:
        ConfigError: no such checkpoint, or it does not fit.
        DataError: the data cannot be used at all.
        OutputError: a full disk, or a folder that cannot be written.
        Interrupted: Ctrl-C.
        LostWorkerError: a process that reads the data has ended.
    """
    trained = read_trained(str(cfg.checkpoint), "checkpoint")
    merged = configuration_of(cfg, trained)
    parts = restore(merged, trained)
    parts.data.require("val")
    with _told(parts), without_remarks(), run_loggers(merged, parts) as loggers:
        trainer = _trainer(merged, parts, loggers, [*parts.watchers, RichProgressBar()])
        trainer.validate(parts.module, parts.data, verbose=False)
        return _finish(parts, trainer, loggers, parts.module.history[-1])


def configuration_of(cfg: DictConfig, trained: Trained) -> DictConfig:
    """The configuration of an evaluation: that of the run, and what is named in place of it.

    Args:
        cfg: as composed from ``conf/evaluate.yaml``.
        trained: what the run left.

    Raises:
        ConfigError: a variant that nothing follows.
    """
    merged = trained.configuration()
    # Not resolved yet: what a part named here takes from another part is that of the checkpoint's run.
    unresolved = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
    named = {key: value for key, value in unresolved.items() if value is not None}
    other_variant = OmegaConf.create(named.get("variant", {})) not in ({}, merged.variant)
    if other_variant and not named.keys() & READ_VARIANT:
        raise ConfigError(
            "the variant changes nothing by itself: selector, merger and model are those of the checkpoint's run; name "
            "the one that is to follow the variant as well, for instance selector=differential"
        )
    # A path of the training run's own invention stays; all others are those of where the evaluation runs.
    named["paths"] = {**trained.config["paths"], **named["paths"]}
    of_data = {key: named.pop(key) for key in ("fps", "max_frames", "embedding_cache") if key in named}
    for key, value in named.items():
        merged[key] = value
    for key, value in of_data.items():
        merged.data[key] = value
    merged.data.train, merged.data.mix = None, None  # the shards of training need not be where evaluation runs
    if merged.data.val is not None:
        merged.data.generate = None
    return merged


def restore(cfg: DictConfig, trained: Trained) -> Parts:
    """The objects of a run with the weights that it left.

    Raises:
        ConfigError: the weights do not fit the configuration.
    """
    parts = _prepare(cfg)
    filled = trained.fill(parts.module.model).filled
    if not trained.whole:  # else what trained is in the parts' own files, too
        parts.module.require({f"model.{name}" for name in filled})
    return parts


def _prepare(cfg: DictConfig) -> Parts:
    config = portable(cfg)
    seed_everything(cfg.seed, workers=True, verbose=False)
    folder = Path(config["paths"]["output_dir"])
    if first_rank():
        with writing_to({folder: RUN_FOLDER}):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    model = build_model(cfg)
    if model.init_report is not None and first_rank():
        with writing_to({folder: RUN_FOLDER}):
            _tell(model.init_report, cfg.init.path, folder)
    encode = build_encoder(cfg, model)
    module = VideoQA(model, build_optim(cfg), config)
    hold(model, precision(cfg.model.get("dtype", "float32")))  # only now it is known what trains
    data = build_data(cfg, encode, model.scorer)
    model.embedding_cache = data.embeddings
    return Parts(
        module=module,
        data=data,
        encode=encode,
        resources=ResourceMonitor(),
        skips=SkipReport(folder),
        decoding=DecodeReport(data.embeddings),
        folder=folder,
    )


def _tell(report: InitReport, path: str, folder: Path) -> None:
    """Write ``init.json`` and one line about it."""
    (folder / "init.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    print(
        f"init: {len(report.filled)} parameters from {path}, {len(report.kept)} kept, "
        f"{len(report.left_out)} of its tensors left out; see {folder / 'init.json'}"
    )


def _remains(parts: Parts) -> str:
    last = parts.folder / "checkpoints" / LAST
    what = f"the last checkpoint is {last}" if last.exists() else "there is no checkpoint"
    return f"{what}, what was logged is in {parts.folder}"


@contextmanager
def _told(parts: Parts) -> Iterator[None]:
    """Within this, Ctrl-C, a lost worker and what the disk refuses end in one message."""
    data, remains = Path(parts.module.config["paths"]["data_dir"]), partial(_remains, parts)
    with (
        told_interrupts(remains),
        told_lost_workers(parts.data.memory_settings, remains),
        writing_to({parts.folder: RUN_FOLDER, data: "paths.data_dir"}),
    ):
        yield


def run_loggers(cfg: DictConfig, parts: Parts, steps_behind: int = 0) -> AbstractContextManager[list[Logger]]:
    """What ``logger`` asks for, see :func:`~vilamp.training.loggers.open_loggers`."""
    node = cfg.logger
    return open_loggers(parts.folder, node.mode, node.project, node.timeout, plain(cfg), steps_behind)


def _trainer(cfg: DictConfig, parts: Parts, loggers: list[Logger], callbacks: list[Any]) -> Trainer:
    return build_object(
        cfg.trainer,
        Trainer,
        "trainer",
        callbacks=callbacks,
        logger=loggers,
        plugins=[WholeFiles()],
        default_root_dir=parts.folder,
        num_sanity_val_steps=0,  # a whole validation runs before the first step
        use_distributed_sampler=False,  # the order of the samples is ours
        enable_model_summary=False,
    )


def _finish(parts: Parts, trainer: Trainer, loggers: list[Logger], figures: dict[str, float]) -> Run:
    """Write ``metrics.json`` and the answers, show the figures, and then look at some questions for the report."""
    figures = figures | parts.skips.measure() | parts.decoding.measure()
    metrics = {name: round(value, 6) for name, value in sorted(figures.items())}
    first, spread = trainer.is_global_zero, isinstance(trainer.strategy, FullyShard)
    if first:
        try:
            if parts.module.right:
                write_right(parts.folder, parts.module.right)
            (parts.folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        finally:  # a disk may have become full, and the figures are there
            _show(metrics, parts.folder)
    samples = None
    # No such setting: a checkpoint from before there were reports.  A model that is spread needs all of its processes.
    if (first or spread) and parts.module.config.get("report", True):
        batches = parts.data.whole_val_dataloader() if parts.data.validates else []
        samples = show(parts.module.model.eval(), parts.encode, cast(Iterable[Batch], batches))
    if first and samples is not None:
        samples.write(parts.folder)
        report = make_report(parts.folder)
        print(f"report: {report.file}")
        log_report(loggers, report)
    return Run(parts.module, parts.data, parts.encode, trainer, metrics, parts.folder)


def _show(metrics: dict[str, float], folder: Path) -> None:
    table = Table("metric", "value", title=f"{folder}")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
