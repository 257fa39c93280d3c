"""Progress of long work, shown on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import rich
from rich import progress as bars
from rich.text import Text

# Called with the number of things done since the last call.
Advance: TypeAlias = Callable[[int], None]


class _Rate(bars.ProgressColumn):
    """Things done per second, from the second call on."""

    def render(self, task: bars.Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def counter(title: str, unit: str, total: int | None = None) -> Iterator[Advance]:
    """A line with count and rate, and with a bar and the time left if the total is known, exactly or about."""
    console = rich.get_console()
    columns = [
        bars.TextColumn(title),
        *([bars.BarColumn(), bars.TaskProgressColumn()] if total else [bars.SpinnerColumn()]),
        bars.TextColumn("{task.completed:,} " + unit),
        _Rate(),
        bars.TimeElapsedColumn(),
        *([bars.TextColumn("left"), bars.TimeRemainingColumn()] if total else []),
    ]
    with bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, advance=done)
