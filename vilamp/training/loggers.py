"""Where a run writes its metrics: always a CSV file, and W&B unless it is switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from vilamp.errors import ConfigError

Mode = Literal["offline", "online", "disabled"]
MODES = get_args(Mode)


def build_loggers(folder: Path, mode: Mode, project: str, config: dict[str, Any]) -> list[Logger]:
    """``metrics.csv`` in the run's folder, and a W&B run beside it.

    Raises:
        ConfigError: ``mode`` is none of :data:`MODES`.
    """
    if mode not in MODES:
        raise ConfigError(f"logger.mode={mode} must be one of {', '.join(MODES)}")
    loggers: list[Logger] = [CSVLogger(folder, name="", version="")]
    if mode != "disabled":
        import wandb  # takes a second, which a run without it should not pay

        settings = wandb.Settings(silent=True, console="off")
        run = wandb.init(project=project, dir=str(folder), mode=mode, config=config, settings=settings)
        loggers.append(WandbLogger(experiment=run))
    return loggers


def log_picture(loggers: list[Logger], name: str, file: Path, caption: str) -> None:
    """Send a picture to every logger that takes pictures."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [str(file)], caption=[caption])
