"""What every logger of this project can be asked; whatever it does not implement does nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger


class RunLogger(Logger):
    """A logger of Lightning's with more to log and an end of its own."""

    may_repeat = False  # whether values that it has may be logged again at their step

    def flush(self) -> None:
        """Write what was logged; called before a checkpoint is written, which must not be ahead of it."""

    def rewind(self, step: int) -> None:
        """The run continues at ``step``; what was logged from there on will be logged again."""

    def alert(self, title: str, text: str, severity: str) -> None:
        """Notify people at once; ``severity`` is ``warning`` or ``error``."""

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Show plain values as the run's outcome."""

    def log_histogram(self, name: str, counts: Sequence[int], limits: tuple[float, float], step: int) -> None:
        """Log the counts of equal parts of the range ``limits``."""

    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table."""

    def archive(self, kind: str, files: Sequence[Path], mark: str = "") -> bool:
        """Keep files of a kind, ``model`` or ``index``, if the settings say so and the last ``mark`` was another."""
        return False

    def close(self) -> None:
        """Close what is open, such as a connection: as failed unless it was finalized as a success. May be repeated."""


def run_loggers(loggers: Iterable[Logger]) -> list[RunLogger]:
    """Those of some loggers that are this project's."""
    return [logger for logger in loggers if isinstance(logger, RunLogger)]
