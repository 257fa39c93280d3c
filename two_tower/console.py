"""What a person sees while a run trains or other long work is done. The only module that prints during training."""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import rich
from lightning_utilities.core.rank_zero import rank_zero_only
from rich import progress as bars
from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from two_tower.files import finite, json_line

STEP = "TWO_TOWER_STEP"  # the variable that is set for a command which is a step of another
SILENCE = 30.0  # seconds after which long work says where it is, where there is no terminal to show it

# normal: for people; quiet: warnings only, on stderr; json: one JSON document on stdout, all else on stderr.
Mode = Literal["normal", "quiet", "json"]
Advance: TypeAlias = Callable[[int], None]  # called with the number of things done since the last call


def set_mode(mode: Mode) -> None:
    """Choose what the process says from now on."""
    console = rich.get_console()
    console.quiet, console.stderr = mode == "quiet", mode == "json"


def print_document(document: Mapping[str, Any]) -> None:
    """Print what a program wants to know, in the mode ``json`` only; numbers that do not exist are null."""
    if rich.get_console().stderr and first_process():
        sys.stdout.write(json_line(finite(document), sys.stdout))
        sys.stdout.flush()


def work_alone() -> None:
    """This process is a run, or a command, of its own, whatever a scheduler's variables (RANK, SLURM_PROCID) say."""
    rank_zero_only.rank = 0  # type: ignore[attr-defined]  # Lightning, once imported, takes it from the environment only if it is not set


def first_process() -> bool:
    """Whether this is the only process of a run, or the first of several."""
    return getattr(rank_zero_only, "rank", None) in (None, 0)  # set when Lightning is imported, which takes seconds


def say(text: str | Text, style: str | None = None) -> None:
    """Print a line, in the first of several processes only; a running progress bar makes room for it."""
    if first_process():
        rich.get_console().print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def command(*words: object) -> str:
    """A command that can be pasted into a shell; a path stays one word, and no option."""
    options = [isinstance(word, Path) and str(word).startswith("-") for word in words]
    return shlex.join(f"./{word}" if option else str(word) for word, option in zip(words, options, strict=True))


def say_next(*commands: str) -> None:
    """Print what to do next: commands, each made by `command`, one after another; not within another command."""
    if STEP not in os.environ:
        say(f"Next: {'   then   '.join(commands)}", style="dim")


class _Console(logging.Handler):
    """Shows the package's log between the lines of the run."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and rich.get_console().quiet and first_process():
            sys.stderr.write(f"{record.levelname.capitalize()}: {record.getMessage()}\n")
        elif record.levelno >= logging.WARNING:
            say(f"{record.levelname.capitalize()}: {record.getMessage()}", style="yellow")
        else:
            say(record.getMessage(), style="dim")


def say_marked(start: str, text: str, marks: Sequence[tuple[int, int]], style: str) -> None:
    """Print a line in which the parts ``marks`` of ``text``, from a character up to another, are underlined."""
    line = Text(text, style=style)
    for first, end in marks:
        line.stylize("underline", first, end)
    say(Text(start, style=style) + line)


def box(title: str, lines: Sequence[tuple[str, str]], style: str) -> None:
    """Print a frame with lines, each a text and its style; a long one is wrapped, indented as it begins."""
    if not first_process():
        return
    rows = [Padding(Text(text.lstrip(), style=kind), (0, 0, 0, len(text) - len(text.lstrip()))) for text, kind in lines]
    rich.get_console().print(Panel(Group(*rows), title=title, title_align="left", border_style=style))


def on_terminal() -> bool:
    """Whether a person may be watching."""
    console = rich.get_console()
    return console.is_terminal and not console.quiet


def show_log() -> None:
    """Send the package's log to the console, and quieten the trainer's own messages."""
    log = logging.getLogger("two_tower")
    if not log.handlers:
        log.addHandler(_Console())
        log.setLevel(logging.INFO)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")


def against(documents: int, all_documents: int) -> str:
    """What every query is ranked against, in words: ``documents`` of the corpus' ``all_documents``."""
    if documents == all_documents:
        return f"all {documents:,} passages"
    sample = "all judged ones and a sample; the figures are higher than against all"
    return f"{documents:,} of {all_documents:,} passages: {sample}"


def name_of_check(row: Mapping[str, float]) -> str:
    """What a check is called: by its epoch (1.5 is in the middle of the second) at the end of one, else by its step."""
    return f"epoch {row['epoch']:.0f}" if float(row["epoch"]).is_integer() else f"step {row['step']:,.0f}"


class _Rate(bars.ProgressColumn):
    """Things done per second, from the second call on."""

    def render(self, task: bars.Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


class Pace:
    """What `counter` counts: called with the number of things just done. As text, how long all took and how fast.

    ``(12.3 s, 4,100 passages/s)``, or without things to count ``(12.3 s)``; while the work lasts, so far.
    """

    def __init__(self, unit: str, show: Advance) -> None:
        self._unit, self._show = unit, show
        self._start, self._end = time.perf_counter(), math.nan
        self._count = 0

    def __call__(self, done: int) -> None:
        self._count += done
        self._show(done)

    def stop(self) -> None:
        """The work is done."""
        self._end = time.perf_counter()

    @property
    def seconds(self) -> float:
        return (time.perf_counter() if math.isnan(self._end) else self._end) - self._start

    def __str__(self) -> str:
        seconds = self.seconds
        rate = f", {self._count / max(seconds, 1e-9):,.0f} {self._unit}/s" if self._count else ""
        return f"({seconds:.1f} s{rate})"


@contextmanager
def counter(title: str, unit: str = "", total: int | None = None) -> Iterator[Pace]:
    """A line with time, count and rate while something lasts, on a terminal only, and what to say of it at the end.

    With a bar and the time left if the total is known, exactly or about; without a unit nothing is counted.
    """
    columns = [
        bars.TextColumn(title),
        *([bars.BarColumn(), bars.TaskProgressColumn()] if total else [bars.SpinnerColumn()]),
        *([bars.TextColumn("{task.completed:,} " + unit), _Rate()] if unit else []),
        bars.TimeElapsedColumn(),
        *([bars.TextColumn("left"), bars.TimeRemainingColumn()] if total else []),
    ]
    with bars.Progress(*columns, transient=True, disable=not on_terminal()) as progress:
        task = progress.add_task(title, total=total)
        told = time.monotonic()

        def advance(done: int) -> None:
            nonlocal told
            progress.update(task, advance=done)
            if unit and progress.disable and time.monotonic() - told > SILENCE:
                told, state = time.monotonic(), progress.tasks[0]
                whole = f" of {total:,}" if total else ""
                say(f"{title}: {state.completed:,.0f}{whole} {unit}, {state.speed or 0:,.0f}/s", style="dim")

        pace = Pace(unit, advance)
        yield pace
        pace.stop()


@contextmanager
def aside(document: bool) -> Iterator[None]:
    """Show what is done on stderr, where a command writes one ``document`` to stdout and nothing else."""
    console = rich.get_console()
    before = console.stderr
    console.stderr = before or document
    try:
        yield
    finally:
        console.stderr = before


class CheckTable:
    """A table that grows by one line per check, under BM25's line on the same documents."""

    def __init__(self, metrics: Sequence[str], queries: int, documents: int, split: str, all_documents: int) -> None:
        self._columns = {metric: max(len(metric), 5) + 2 for metric in metrics}
        self._documents = documents  # in every line, since a metric means nothing without it
        ranked = against(documents, all_documents)
        say(f"\nValidation: {queries:,} queries of '{split}', each against {ranked}", style="bold")
        heads = "".join(f"{metric:>{width}}" for metric, width in self._columns.items())
        say(f"{'':<14}{'documents':>11}{heads}{'loss':>10}{'seconds':>9}", style="dim")

    def row(
        self, name: str, means: Mapping[str, float], seconds: float = 0.0, best: bool = False,
        loss: float | None = None, documents: int | None = None,
    ) -> None:  # fmt: skip
        """Print one line; the best check so far carries a star."""
        values = "".join(f"{means[metric]:>{width}.3f}" for metric, width in self._columns.items())
        loss_cell = " " * 10 if loss is None else f"{loss:>10.4f}"
        time_cell = f"{seconds:>9.1f}" if seconds else " " * 9
        say(f"{name:<14}{documents or self._documents:>11,}{values}{loss_cell}{time_cell}{'  *' if best else ''}")
