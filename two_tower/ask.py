"""``two-tower search``: questions from the command line, a prompt or a pipe; answers for people or programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from two_tower.console import aside, command, counter, say, say_marked, say_next
from two_tower.errors import UserError
from two_tower.files import json_line

if TYPE_CHECKING:
    from two_tower.search import Answer, Mode

SHOWN = 200  # characters of a passage


def ask(
    run: Path, indexes: Sequence[Path], query: str | None, k: int, mode: Mode, as_json: bool, where: Sequence[str] = ()
) -> None:
    """Print the ``k`` best passages of each index for a query; without one, for each that is typed or piped in.

    ``where`` are conditions on their fields, see `two_tower.search.Searcher.search`.
    """
    if query is None and as_json and sys.stdin.isatty():
        raise UserError('--json needs a query on the command line: two-tower search RUN "query" --json')
    with aside(as_json), counter(f"Loading {run}") as loading:
        from two_tower.search import by_name, load_searchers

        searchers = by_name(load_searchers([run], indexes))
    for question in _lines() if query is None else [query]:
        answers = {name: each.search([question], k, mode, where)[0] for name, each in searchers.items()}
        if as_json:
            _print(question, answers)
            continue
        for name, answer in answers.items():
            if len(answers) > 1:
                say(f"{name}: {searchers[name].passages:,} passages", style="bold")
            _show(answer)
    if query is not None and not as_json:
        say(f"Loaded {loading}.", style="dim")
        say_next(command("two-tower", "serve", run, *(word for path in indexes for word in ("--index", path))))


def _lines() -> Iterator[str]:
    """Queries typed at a prompt, where an empty line stops, or piped in, one per line."""
    if not sys.stdin.isatty():
        yield from filter(None, map(str.strip, sys.stdin))
        return
    with suppress(EOFError, KeyboardInterrupt):
        yield from iter(lambda: input("query> ").strip(), "")


def _print(question: str, answers: Mapping[str, Answer]) -> None:
    """One JSON document: the answer, or of several indexes that of each."""
    briefs = [{"index": name, **answer.brief()} for name, answer in answers.items()]
    document = {"query": question, "indexes": briefs} if len(answers) > 1 else next(iter(answers.values())).brief()
    sys.stdout.write(json_line(document, sys.stdout))


def _show(answer: Answer) -> None:
    for note in answer.notes:
        say(note, style="yellow")
    for hit in answer.hits:
        say_marked(f"{hit.rank:>3}  {hit.score:.3f}  ", hit.title or hit.id, hit.title_marks, style="bold")
        text = hit.text if len(hit.text) <= SHOWN else hit.text[: SHOWN - 3].rsplit(" ", 1)[0] + " …"
        say_marked(" " * 12, text, [(a, b) for a, b in hit.marks if b <= len(text)], style="dim")
        if hit.url:
            say(" " * 12 + hit.url, style="dim")
