"""Progress of long work, shown on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["counter"]


class _Rate(ProgressColumn):
    """Things done per second, once that is known."""

    def render(self, task: Task) -> Text:
        """The rate as text; empty before the second call."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def counter(title: str, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A line with count and rate; with a bar and the time left where the length is known.

    Args:
        title: what is done.
        unit: what is counted.
        total: how many there are, exactly or about; None if unknown.

    Yields:
        A function to call with the number done since the last call.
    """
    console = rich.get_console()
    columns = [
        TextColumn(title),
        *([BarColumn(), TaskProgressColumn()] if total else [SpinnerColumn()]),
        TextColumn("{task.completed:,} " + unit),
        _Rate(),
        TimeElapsedColumn(),
        *([TextColumn("left"), TimeRemainingColumn()] if total else []),
    ]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, advance=done)
