"""Loggers: where the history of a run goes. The CSV history is always written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger

from two_tower.config import build, read
from two_tower.console import say
from two_tower.errors import UserError
from two_tower.logger.base import RunLogger, run_loggers
from two_tower.logger.csv import CsvLogger
from two_tower.run import Run

__all__ = ["RunLogger", "archive_index", "log_epoch", "logged", "make_loggers", "run_loggers"]


def make_loggers(chosen: Mapping[str, Any], run: Run) -> list[Logger]:
    """The logger of a configuration's group ``logger``, and always the CSV history."""
    logger = build("logger", chosen, offer={"run": run, "path": run.metrics})
    return [logger] if isinstance(logger, CsvLogger) else [CsvLogger(run.metrics), logger]


@contextmanager
def logged(trainer: L.Trainer, config: Mapping[str, Any]) -> Iterator[None]:
    """Give the run's configuration to the trainer's loggers; in the end none is left open.

    The trainer ends them, but not if it never started or one failed at that; the next run must not write into this.
    """
    try:
        for logger in trainer.loggers:
            logger.log_hyperparams(dict(config))
        yield
    except BaseException:
        for logger in trainer.loggers:
            logger.finalize("failed")
        raise
    finally:
        for logger in run_loggers(trainer.loggers):
            logger.close()


def log_epoch(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """Hand the figures of an epoch to all loggers at once.

    ``LightningModule.log`` hands them on after the epoch's checkpoint: a run killed in between would lack them.
    """
    for logger in trainer.loggers:
        logger.log_metrics({"epoch": trainer.current_epoch, **metrics}, step=trainer.global_step - 1)


def archive_index(run: Run, folder: Path) -> None:
    """Hand a finished index to the logger of its run, which keeps files; say so if it cannot.

    Only for a complete run: another may be training now, or is shown as failed, which this would overwrite. An index
    is not kept twice, so this may be called whenever one is found.
    """
    config = read(run.config)["logger"]
    try:
        if not run.complete:
            raise UserError(f"the run in {run.path} is not complete.")
        mark = f"{folder.absolute()}\n{(folder / 'index.yaml').read_text(encoding='utf-8')}"
        for logger in run_loggers([build("logger", config, offer={"run": run, "path": run.metrics})]):
            try:
                if logger.archive("index", [folder], mark):
                    logger.summarize(run.read_results())  # what is uploaded last must not lack them
            finally:
                logger.finalize("success")  # as the run was
                logger.close()
    except UserError as error:  # the index is made and can be used
        say(f"The index is no artifact of its run: {error}", style="yellow")
