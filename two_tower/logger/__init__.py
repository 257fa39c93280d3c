"""Loggers: where the history of a run goes. The CSV history is always written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.loggers import Logger

from two_tower.config import build, read
from two_tower.console import say
from two_tower.errors import UserError
from two_tower.logger.csv import CsvLogger
from two_tower.run import Run

__all__ = [
    "Alerting", "Archiving", "Closing", "Histograms", "History", "archive_index", "log_epoch", "logged", "make_loggers",
]  # fmt: skip


@runtime_checkable
class History(Protocol):
    """A logger that keeps step with the checkpoint from which an interrupted run is continued."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values at a step; what is known of it already may be given again."""

    def flush(self) -> None:
        """Write what was logged; called before a checkpoint is, which must not be ahead of it."""

    def rewind(self, step: int) -> None:
        """The run continues at ``step``; what was logged from there on will be logged again."""


@runtime_checkable
class Alerting(Protocol):
    """A logger that can call people, and that shows how a run ended."""

    def alert(self, title: str, text: str, severity: str) -> None:
        """Tell people of something at once; ``severity`` is ``warning`` or ``error``."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Show plain values as the run's outcome."""


@runtime_checkable
class Histograms(Protocol):
    """A logger that draws histograms."""

    def log_histogram(self, name: str, counts: Sequence[int], limits: tuple[float, float], step: int) -> None:
        """Log the counts of equal parts of the range ``limits``."""


@runtime_checkable
class Archiving(Protocol):
    """A logger that keeps files of a run."""

    def archive(self, kind: str, files: Sequence[Path], mark: str = "") -> bool:
        """Keep files or folders, if its settings say so; ``kind`` is ``model`` or ``index``.

        Returns whether it has: not what was kept last under the same ``mark``.
        """


@runtime_checkable
class Closing(Protocol):
    """A logger that holds something open until it is closed, for example a connection."""

    def close(self) -> None:
        """Close it, as failed unless it was finalised as a success; may be called again."""


def make_loggers(chosen: Mapping[str, Any], run: Run) -> list[Logger]:
    """The logger of a configuration, and besides it the CSV history.

    Args:
        chosen: the configuration's group ``logger``.
        run: the run folder.

    Raises:
        UserError: what the logger needs is missing: a package, an account.
    """
    logger = build("logger", chosen, offer={"run": run, "path": run.metrics})
    return [logger] if isinstance(logger, CsvLogger) else [CsvLogger(run.metrics), logger]


@contextmanager
def logged(trainer: L.Trainer, config: Mapping[str, Any]) -> Iterator[None]:
    """Start the trainer's loggers with the configuration of the run; in the end none is left open.

    The trainer ends them itself, but not where it has not begun, nor after one of them has failed at that. The next
    run of this process must not write into this one.
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
        for logger in trainer.loggers:
            if isinstance(logger, Closing):
                logger.close()


def log_epoch(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """Hand the figures of an epoch to all loggers at once.

    ``LightningModule.log`` hands them on only after the epoch's checkpoint is written: a run killed in
    between would lack them when it continues.
    """
    for logger in trainer.loggers:
        logger.log_metrics({"epoch": trainer.current_epoch, **metrics}, step=trainer.global_step - 1)


def archive_index(run: Run, folder: Path) -> None:
    """Hand a finished index to the logger of its run, if that keeps files; say so where it cannot.

    Not of a run that is not complete: it may be training now, or its logger shows it as failed, which it would not
    any more. An index that is kept already is not kept again, so this may be called whenever one is found.
    """
    config = read(run.config)["logger"]
    if not config.get("artifacts"):
        return
    try:
        if not run.complete:
            raise UserError(f"the run in {run.path} is not complete.")
        logger = build("logger", config, offer={"run": run, "path": run.metrics})
        if isinstance(logger, Archiving):
            _archive(logger, run, folder)
    except UserError as error:  # the index is made and can be used
        say(f"The index is no artifact of its run: {error}", style="yellow")


def _archive(logger: Any, run: Run, folder: Path) -> None:  # noqa: ANN401
    try:
        mark = f"{folder.absolute()}\n{(folder / 'index.yaml').read_text(encoding='utf-8')}"
        if logger.archive("index", [folder], mark) and isinstance(logger, Alerting):
            logger.summarise(run.read_results())  # what is uploaded last must not lack them
    finally:
        logger.finalize("success")  # as the run was
        if isinstance(logger, Closing):
            logger.close()
