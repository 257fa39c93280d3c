"""What a person sees while a run trains. The only module that prints during training."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import rich

__all__ = ["EpochTable", "on_terminal", "say", "show_log"]


def say(text: str, style: str | None = None) -> None:
    """Print a line; through rich's global console, which a running progress bar makes room for."""
    rich.get_console().print(text, style=style, highlight=False, soft_wrap=True, markup=False)


class _Console(logging.Handler):
    """Shows the package's log between the lines of the run."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            say(f"{record.levelname.capitalize()}: {record.getMessage()}", style="yellow")
        else:
            say(record.getMessage(), style="dim")


def on_terminal() -> bool:
    """Whether a person may be watching."""
    return rich.get_console().is_terminal


def show_log() -> None:
    """Send the package's log to the console, and quieten the trainer's own messages."""
    log = logging.getLogger("two_tower")
    if not log.handlers:
        log.addHandler(_Console())
        log.setLevel(logging.INFO)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")


class EpochTable:
    """A table that grows by one line per epoch, under BM25's line on the same corpus.

    Args:
        metrics: columns.
        queries: number of validation queries.
        documents: size of the corpus that is ranked for every query.
        split: name of the validation split.
    """

    def __init__(self, metrics: Sequence[str], queries: int, documents: int, split: str) -> None:
        self.metrics = metrics
        say(
            f"\nValidation: {queries:,} queries of '{split}', each against all {documents:,} passages",
            style="bold",
        )
        heads = "".join(f"{m:>12}" for m in metrics)
        say(f"{'':<12}{heads}{'loss':>10}{'seconds':>9}", style="dim")

    def row(
        self,
        name: str,
        means: dict[str, float],
        seconds: float = 0.0,
        best: bool = False,
        loss: float | None = None,
    ) -> None:
        """Print one line; the best epoch so far carries a star."""
        values = "".join(f"{means[m]:>12.3f}" for m in self.metrics)
        shown_loss = f"{loss:>10.4f}" if loss is not None else " " * 10
        spent = f"{seconds:>9.1f}" if seconds else " " * 9
        say(f"{name:<12}{values}{shown_loss}{spent}{'  *' if best else ''}")
