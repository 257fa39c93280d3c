"""What a person sees while a run trains. The only module that prints during training."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rich
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["EpochTable", "counter", "say"]


def say(text: str, style: str | None = None) -> None:
    """Print a line; through rich's global console, which a running progress bar makes room for."""
    rich.get_console().print(text, style=style, highlight=False, soft_wrap=True, markup=False)


class _Warnings(logging.Handler):
    """Shows the package's warnings between the lines of the run."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.capitalize()}: {record.getMessage()}", style="yellow")


def show_warnings() -> None:
    """Send the package's log to the console from WARNING on, and quieten the trainer's own messages."""
    log = logging.getLogger("two_tower")
    if not log.handlers:
        log.addHandler(_Warnings(logging.WARNING))
        log.propagate = False
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


@contextmanager
def counter(title: str, unit: str) -> Iterator[Callable[[int], None]]:
    """A progress line with count and rate for work of unknown length; shown on a terminal only."""
    console = rich.get_console()
    columns = [
        TextColumn(title),
        SpinnerColumn(),
        TextColumn("{task.completed:,} " + unit),
        TextColumn("{task.speed:,.0f}/s"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done: progress.update(task, advance=done)
