"""A sweep of training: each job's failure stays in its folder, and the leaderboard is up to date after every job."""

from __future__ import annotations

import math
import os
import secrets
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from two_tower.config.entry import Job
from two_tower.console import command, first_process, print_document, say, say_next, set_mode, show_log
from two_tower.errors import UserError, fail
from two_tower.files import finite, read_json, write_json, write_text
from two_tower.study import SUMMARY, Pruned

FAILURE = "failure.json"
# The workers of every launcher inherit the environment: which sweep they work for, and how many jobs it has.
_NAME, _JOBS = "TWO_TOWER_SWEEP", "TWO_TOWER_SWEEP_JOBS"


class Failure(NamedTuple):
    """A job that ended without results: its folder, its overrides as typed, one sentence, and its sweep's name."""

    path: Path
    overrides: str
    error: str
    sweep: str

    def __str__(self) -> str:
        return f"{self.overrides or self.path.name}: {self.error}"


@dataclass(frozen=True)
class TrainingSweep:
    """A `two_tower.config.entry.Sweep`; ``check`` raises a UserError for a configuration that cannot work."""

    check: Callable[..., object]

    def begin(self, folder: Path, jobs: int | None, composed: Mapping[str, Any]) -> None:
        set_mode(composed["console"])
        show_log()
        os.environ[_NAME], os.environ[_JOBS] = secrets.token_hex(8), str(jobs or "")
        say(f"Sweep of {jobs or 'several'} jobs in {folder}.", style="bold")

    def run(self, job: Job, work: Callable[[], float | None]) -> float | None:
        """Do a job and return its objective; what it raises goes into its folder, unless the user ends the sweep."""
        number, jobs, study = job.number + 1, os.environ.get(_JOBS, ""), job.study
        with study.hold(job.number) if study else nullcontext():
            say(f"\nJob {number}{f' of {jobs}' if jobs else ''}: {' '.join(job.overrides)}", style="bold")
            objective = _done(job, work)
            if study:
                study.tell(job.number, objective)
        if first_process() and job.sweep:
            write_leaderboard(job.sweep)
        return objective

    def end(self, folder: Path) -> None:
        """Show the leaderboard; exit with status 1 and a list if jobs have failed."""
        say(f"\n{write_leaderboard(folder)}")
        document = read_json(folder / "leaderboard.json")
        best = document["rows"][0]["runs"][0]["path"] if document["rows"] else "RUN"
        say(f"Leaderboard: {folder / 'leaderboard.md'}, leaderboard.html (with plots), leaderboard.json", style="dim")
        say_next(command("two-tower", "compare", folder), command("python", "embed.py", f"run={best}"))
        print_document(document)
        failed = [each for each in failures(folder) if each.sweep == os.environ.get(_NAME)]
        if failed:
            jobs = os.environ.get(_JOBS) or "the"
            listed = "; ".join(str(each).rstrip(".") for each in failed)
            fail(f"{len(failed)} of {jobs} jobs failed ({listed}); the same command tries them again", status=1)


def _done(job: Job, work: Callable[[], float | None]) -> float | None:
    """The objective of a job: None if its run was given up, NaN if it failed, for sweepers that look for the best."""
    (job.folder / FAILURE).unlink(missing_ok=True)
    try:
        return work()
    except Pruned as ended:
        say(f"The job was given up: {ended}")
        return None
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split()) or "no message"
        sentence = text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"  # of a bug, its kind
        say(f"The job failed: {sentence}", style="red")
        if first_process():
            job.folder.mkdir(parents=True, exist_ok=True)  # a run that never began has removed it
            trace = "".join(traceback.format_exception(error))
            document = {"overrides": list(job.overrides), "error": sentence, "traceback": trace}
            write_json(job.folder / FAILURE, {**document, "sweep": os.environ.get(_NAME, "")})
        return math.nan


def failures(folder: Path) -> list[Failure]:
    """The jobs of a sweep's folder that have failed and were not run again since."""
    read = {path.parent: read_json(path) for path in sorted(folder.glob(f"*/{FAILURE}"))}
    return [Failure(job, " ".join(its["overrides"]), its["error"], its["sweep"]) for job, its in read.items()]


def write_leaderboard(folder: Path) -> str:
    """Write ``leaderboard.md``, ``.html`` and ``.json`` for a sweep's finished runs; return the short form.

    Runs that cannot be compared, of different collections for example, leave a sentence in their place.
    """
    from two_tower.report.leaderboard import leaderboard  # with PyTorch, which takes seconds before anything is shown
    from two_tower.report.page import brief_page, html_page, markdown_page
    from two_tower.report.study import study_blocks

    with FileLock(folder / ".leaderboard.lock"):  # jobs may end at the same time
        failed, document = failures(folder), dict[str, Any](rows=[])
        lines = [str(each) for each in failed]
        finished = [path.parent for path in sorted(folder.glob("*/results.json"))]
        study = read_json(folder / SUMMARY)
        more = study_blocks(study) if study else []
        try:
            if not finished:
                raise UserError("No job has finished yet.")
            board = leaderboard(finished)
            document, page, html = board.to_dict(), markdown_page(board, lines, more), html_page(board, lines, more)
            brief = brief_page(board, lines, more)
        except UserError as error:
            page = brief = "\n\n".join([f"# Leaderboard\n\n{error}", *(f"Failed: {each}" for each in lines)]) + "\n"
            html = f"<!doctype html>\n<meta charset='utf-8'>\n<title>Leaderboard</title>\n<pre>{escape(page)}</pre>\n"
            document["problem"] = str(error)
        document["failed"] = [{"path": str(f.path), "overrides": f.overrides, "error": f.error} for f in failed]
        write_text(folder / "leaderboard.md", page)
        write_text(folder / "leaderboard.html", html)
        write_json(folder / "leaderboard.json", finite(document))
    return brief
