"""Where a run writes its metrics: always a CSV file, and W&B unless it is switched off."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from vilamp.errors import ConfigError
from vilamp.report.make import Report
from vilamp.training.ranks import first_rank

log = logging.getLogger(__name__)

Mode = Literal["offline", "online", "disabled"]
MODES = get_args(Mode)


class PatientWandbLogger(WandbLogger):
    """W&B's logger, which can end without ending the run: that is said once, and from then on it takes nothing.

    W&B has a process of its own, which can be killed.  A network that fails is no such end: that process keeps what it
    could not send.
    """

    gone = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """As the class above, unless it is gone."""
        self.attempt(super().log_metrics, metrics, step)

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """As the class above, unless it is gone."""
        self.attempt(super().log_image, key, images, step, **kwargs)

    def attempt(self, action: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Do something that needs W&B's process."""
        import wandb

        if self.gone:
            return
        try:
            action(*args, **kwargs)
        except (ConnectionError, wandb.Error) as error:
            self.gone = True
            log.warning(
                "W&B's process has ended (%s: %s). The run goes on, and metrics.csv has every step; `wandb sync %s` "
                "sends what W&B had until now",
                type(error).__name__, error, self.experiment.settings.sync_dir,
            )  # fmt: skip
            with suppress(ConnectionError):
                wandb.teardown()  # else it fails when the program ends, with a traceback


@contextmanager
def open_loggers(
    folder: Path, mode: Mode, project: str, timeout: float, config: dict[str, Any], steps_behind: int = 0
) -> Iterator[list[Logger]]:
    """``metrics.csv`` in the run's folder, and a W&B run beside it, both finished whatever happens.

    Without a network or a key the W&B run is an offline one, and a warning says so.

    Args:
        folder: the run's.
        mode: of W&B.
        project: of W&B.
        timeout: seconds to wait for W&B's server, when the run begins and again when it ends.
        config: shown in W&B.
        steps_behind: of a run that goes on; ``metrics.csv`` keeps what it logged in them.

    Raises:
        ConfigError: ``mode`` is none of :data:`MODES`, or ``timeout`` is not positive.
    """
    if mode not in MODES:
        raise ConfigError(f"logger.mode={mode} must be one of {', '.join(MODES)}")
    if not isinstance(timeout, int | float) or not timeout > 0:
        raise ConfigError(f"logger.timeout={timeout} must be a positive number of seconds")
    loggers: list[Logger] = [_csv_logger(folder, steps_behind)]
    if mode != "disabled" and first_rank():  # Lightning's CSVLogger writes on the first rank only by itself
        loggers.append(PatientWandbLogger(experiment=_wandb_run(folder, mode, project, timeout, config)))
    with ExitStack() as closing:  # each is finished, whatever happened to the run and to the others
        ended_well: list[bool] = []
        for logger in loggers:
            closing.callback(_finish, logger, ended_well, timeout)
        yield loggers
        ended_well.append(True)


def _csv_logger(folder: Path, steps_behind: int) -> CSVLogger:
    """Begins ``metrics.csv`` anew, with its rows of the steps behind."""
    logger = CSVLogger(folder, name="", version="")
    if not first_rank():
        return logger
    # Lightning removes a file that is there.  Under this name it outlives a kill before its rows are written again.
    file, before = folder / "metrics.csv", folder / "metrics.before.csv"
    if steps_behind and file.exists() and not before.exists():
        file.rename(before)
    if steps_behind and before.exists():
        with before.open(newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if (row.get("step") or "").isdigit()]
        logger.experiment.metrics = [
            {name: value for name, value in row.items() if value} for row in rows if int(row["step"]) < steps_behind
        ]
        logger.save()
    before.unlink(missing_ok=True)
    return logger


def _wandb_run(folder: Path, mode: Mode, project: str, timeout: float, config: dict[str, Any]) -> Any:
    import wandb  # takes a second, which a run without it should not pay

    settings = wandb.Settings(
        silent=True, console="off", init_timeout=timeout, finish_timeout=timeout, finish_timeout_raises=True
    )
    try:
        return wandb.init(project=project, dir=str(folder), mode=mode, config=config, settings=settings)
    except wandb.Error as error:
        if mode != "online":
            raise
        reason = str(error).partition("\n")[0]
        log.warning(
            "W&B cannot be used now, so this run is logged offline (%s: %s). Afterwards `wandb sync "
            "%s/wandb/offline-run-*` sends it. For later runs: `wandb login`, the network, or a larger "
            "logger.timeout=%g (seconds)",
            type(error).__name__, reason, folder, timeout,
        )  # fmt: skip
    return _wandb_run(folder, "offline", project, timeout, config)


def _finish(logger: Logger, ended_well: list[bool], timeout: float) -> None:
    """Write what is not written yet; ``ended_well`` is empty where the run failed."""
    failed = not ended_well
    logger.finalize("failed" if failed else "success")
    if not isinstance(logger, PatientWandbLogger):
        return
    folder = logger.experiment.settings.sync_dir
    try:
        logger.attempt(logger.experiment.finish, exit_code=int(failed))
    except TimeoutError:
        log.warning(
            "W&B did not take everything within logger.timeout=%g seconds; `wandb sync %s` sends the rest",
            timeout, folder,
        )  # fmt: skip


def log_report(loggers: list[Logger], report: Report) -> None:
    """Send the charts of a report to W&B as pictures, and the questions that it shows as a table."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for chart in report.charts:
                logger.log_image(f"report/{chart.name}", [str(report.pictures[chart.name])], caption=[chart.caption])
            _log_samples(logger, report)


def _log_samples(logger: WandbLogger, report: Report) -> None:
    import wandb

    columns = ["question", "answer", "right answer", "right", "kind", "timeline"]
    rows = [
        [
            sample.question,
            sample.answer,
            sample.right_answer,
            sample.exact,
            sample.kind,
            wandb.Image(str(report.pictures[chart.name])),
        ]
        for sample, chart in report.samples
    ]
    if rows:
        logger.log_table("report/samples", columns=columns, data=rows)
