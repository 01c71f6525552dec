"""Where a run writes its metrics: always a CSV file, and W&B unless it is switched off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import TIMEOUT_MAX, Thread
from typing import Any, Literal, get_args

from lightning.pytorch.loggers import Logger, WandbLogger

from vilamp.errors import ConfigError
from vilamp.report.make import Report
from vilamp.training.metrics_file import metrics_file
from vilamp.training.ranks import first_rank

log = logging.getLogger(__name__)

Mode = Literal["offline", "online", "disabled"]
MODES = get_args(Mode)


WAITING = 1000
"""Calls that may wait for W&B; what is logged while so many do is left out of W&B."""
SHARE = 0.9
"""Of the timeout at the end that W&B's process gives itself; in the rest it must say that it did not finish."""
STARTING = 60
"""Seconds that W&B may take to begin, beside those for its server; it gives its own process 30 of them."""


class PatientWandbLogger(WandbLogger):
    """W&B's logger, which neither ends a run nor holds it up: a thread of its own makes the calls, in their order.

    W&B has a process of its own, which can be killed, or take nothing for as long as it likes.  A network that fails is
    no such end: that process keeps what it could not send.  What happens to W&B is said once.

    Args:
        experiment: W&B's run.
        timeout: seconds to wait for it at the end.
    """

    def __init__(self, experiment: Any, timeout: float) -> None:
        super().__init__(experiment=experiment)
        self._timeout = timeout
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._told = self._gone = False
        self._caller = Thread(target=self._make_calls, name="wandb", daemon=True)  # the program's end waits for none
        self._caller.start()

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """As the class above, as soon as W&B takes it."""
        if self._calls.qsize() < WAITING:
            self._calls.put(partial(super().log_metrics, metrics, step))
        else:
            self._tell(f"W&B does not keep up: {WAITING} calls wait for it, and until it goes on it gets no more.")

    def end(self, exit_code: int) -> None:
        """Let W&B take what waits and finish its run, for no longer than the timeout."""
        self._calls.put(partial(self.experiment.finish, exit_code=exit_code))
        self._calls.put(None)
        self._caller.join(self._timeout)
        if self._caller.is_alive():
            self._late()
            _leave()

    def _make_calls(self) -> None:
        while (call := self._calls.get()) is not None:
            if not self._gone:
                self._make(call)

    def _make(self, call: Callable[[], None]) -> None:
        try:
            call()
        except TimeoutError:  # of finish
            self._late()
        except Exception as error:  # whatever it is, the run goes on
            self._gone = True
            self._tell(f"W&B has ended ({type(error).__name__}: {error}).")
            _teardown()  # else it fails when the program ends, with a traceback

    def _late(self) -> None:
        self._tell(f"W&B did not take everything within logger.timeout={self._timeout:g} seconds.")

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            folder = self.experiment.settings.sync_dir
            log.warning("%s metrics.csv has every step; `wandb sync %s` sends what W&B has", what, folder)


@contextmanager
def open_loggers(
    folder: Path, mode: Mode, project: str, timeout: float, config: dict[str, Any], steps_behind: int = 0
) -> Iterator[list[Logger]]:
    """``metrics.csv`` in the run's folder, and a W&B run beside it, both finished whatever happens.

    Without a network or a key the W&B run is an offline one, and where W&B cannot begin at all, or does not within
    :data:`STARTING` and ``timeout`` seconds (the offline one within as many again), there is none; a warning says so.

    Args:
        folder: the run's.
        mode: of W&B.
        project: of W&B.
        timeout: seconds to wait for W&B's server, when the run begins and again when it ends.
        config: shown in W&B.
        steps_behind: of a run that goes on; ``metrics.csv`` keeps what it logged in them.

    Raises:
        ConfigError: ``mode`` is none of :data:`MODES`, ``timeout`` is not positive, or W&B refuses ``project``.
    """
    if mode not in MODES:
        raise ConfigError(f"logger.mode={mode} must be one of {', '.join(MODES)}")
    if not isinstance(timeout, int | float) or not 0 < timeout < TIMEOUT_MAX - STARTING:
        raise ConfigError(f"logger.timeout={timeout} must be a positive number of seconds, and finite")
    loggers: list[Logger] = [metrics_file(folder, steps_behind)]
    with ExitStack() as closing:  # each is finished, whatever happened to the run and to the others
        if mode != "disabled" and first_rank():
            run = None
            try:
                run = _wandb_run(folder, mode, project, timeout, config)
            finally:
                if run is None:
                    closing.callback(_leave)  # at the end: it may still begin
            if run is not None:
                loggers.append(PatientWandbLogger(run, timeout))
        ended_well: list[bool] = []
        for logger in loggers:
            closing.callback(_finish, logger, ended_well)
        yield loggers
        ended_well.append(True)


def _wandb_run(folder: Path, mode: Mode, project: str, timeout: float, config: dict[str, Any]) -> Any | None:
    """W&B's run, an offline one where its server cannot be had; None where W&B cannot begin, or hangs."""
    import wandb  # takes a second, which a run without it should not pay
    from wandb.errors import UsageError

    def begin() -> Any:
        wandb.setup(wandb.Settings(silent=True))  # also for what is no run's
        settings = wandb.Settings(
            silent=True, console="off", init_timeout=timeout, finish_timeout=SHARE * timeout, finish_timeout_raises=True
        )
        return wandb.init(project=project, dir=str(folder), mode=mode, config=config, settings=settings)

    try:
        return _in_time(begin, STARTING + timeout)
    except Exception as error:  # whatever it is, the run goes on
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if mode == "online" and isinstance(error, wandb.Error):
            run = _wandb_run(folder, "offline", project, timeout, config)
            if run is not None:
                log.warning(
                    "W&B cannot be used now, so this run is logged offline (%s). Afterwards `wandb sync "
                    "%s/wandb/offline-run-*` sends it. For later runs: `wandb login`, the network, or a larger "
                    "logger.timeout=%g (seconds)",
                    reason, folder, timeout,
                )  # fmt: skip
            return run
        if isinstance(error, UsageError):
            raise ConfigError(
                f"W&B refuses how it is set (logger.project={project} or a WANDB_ variable): {error}"
            ) from error
    log.warning("W&B cannot begin, so this run is logged in metrics.csv alone (%s); logger=csv goes without it", reason)
    return None


def _in_time(begin: Callable[[], Any], seconds: float) -> Any:
    """What ``begin`` returns or raises, in a thread that nobody waits for when the time is up.

    Raises:
        TimeoutError: it has not returned.
    """
    begun: Future[Any] = Future()

    def call() -> None:
        try:
            begun.set_result(begin())
        except BaseException as error:  # raised where it is waited for
            begun.set_exception(error)

    Thread(target=call, name="wandb-begins", daemon=True).start()
    if not wait([begun], seconds).done:
        raise TimeoutError(f"it has not within {seconds:g} seconds; a larger logger.timeout waits longer")
    return begun.result()


def _leave() -> None:
    """Let go of W&B, which would wait for its process, without an end, when the program ends."""
    leaving = Thread(target=_teardown, daemon=True)
    leaving.start()
    leaving.join(1)


def _teardown() -> None:
    import wandb

    with suppress(ConnectionError, AssertionError):  # its process is gone, or somebody else has torn it down
        wandb.teardown()


def _finish(logger: Logger, ended_well: list[bool]) -> None:
    """Write what is not written yet; ``ended_well`` is empty where the run failed."""
    failed = not ended_well
    logger.finalize("failed" if failed else "success")
    if isinstance(logger, PatientWandbLogger):
        logger.end(int(failed))


def log_scores(loggers: list[Logger], scores: Mapping[str, Mapping[str, float]]) -> None:
    """Send the scores of a benchmark to W&B, as ``<way of answering>/<name>``."""
    figures = {f"{way}/{name}": value for way, of_way in scores.items() for name, value in of_way.items()}
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_metrics(figures)


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
