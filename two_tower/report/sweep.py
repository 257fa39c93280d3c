"""A sweep of training: each job's failure stays in its folder, and the leaderboard is up to date after every job."""

from __future__ import annotations

import json
import os
import secrets
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from two_tower.config.sweep import Job
from two_tower.console import first_process, print_document, say, set_mode
from two_tower.errors import UserError, fail
from two_tower.files import finite, write_json, write_text
from two_tower.report.compare import brief_page, html_page, leaderboard, markdown_page

__all__ = ["FAILURE", "Failure", "TrainingSweep", "failures", "write_leaderboard"]

FAILURE = "failure.json"
# The workers of every launcher inherit the environment: which sweep they work for, and how many jobs it has.
_NAME, _JOBS = "TWO_TOWER_SWEEP", "TWO_TOWER_SWEEP_JOBS"


class Failure(NamedTuple):
    """A job that ended without results.

    Attributes:
        path: its folder.
        overrides: as they were typed.
        error: one sentence.
        sweep: which start of a sweep it belongs to.
    """

    path: Path
    overrides: str
    error: str
    sweep: str


@dataclass(frozen=True)
class TrainingSweep:
    """See `two_tower.config.sweep.Sweep`.

    Attributes:
        check: raises a UserError for a composed configuration that cannot work.
    """

    check: Callable[[Any], object]

    def begin(self, folder: Path, jobs: int | None, composed: Mapping[str, Any]) -> None:
        """Give the sweep a name by which its failures are found again."""
        set_mode(composed["console"])
        os.environ[_NAME], os.environ[_JOBS] = secrets.token_hex(8), str(jobs or "")
        say(f"Sweep of {jobs or 'several'} jobs in {folder}.", style="bold")

    def run(self, job: Job, work: Callable[[], object]) -> None:
        """Do a job; what it raises is written into its folder, unless it is the user who ends the sweep."""
        number, jobs = job.number + 1, os.environ.get(_JOBS, "")
        say(f"\nJob {number}{f' of {jobs}' if jobs else ''}: {' '.join(job.overrides)}", style="bold")
        failure = job.folder / FAILURE
        failure.unlink(missing_ok=True)
        try:
            work()
        except (Exception, SystemExit) as error:
            sentence = _sentence(error)
            say(f"The job failed: {sentence}", style="red")
            if first_process():
                job.folder.mkdir(parents=True, exist_ok=True)  # a run that never began has removed it
                write_json(
                    failure,
                    {
                        "overrides": list(job.overrides),
                        "error": sentence,
                        "traceback": "".join(traceback.format_exception(error)),
                        "sweep": os.environ.get(_NAME, ""),
                    },
                )
        if first_process():
            write_leaderboard(job.sweep)

    def end(self, folder: Path) -> None:
        """Show the leaderboard; exit with status 1 and a list if jobs have failed."""
        say(f"\n{write_leaderboard(folder)}")
        say(f"Leaderboard: {folder / 'leaderboard.md'}, leaderboard.html (with plots), leaderboard.json", style="dim")
        say(f"Next: two-tower compare {folder}   or   python embed.py run={_best(folder) or 'RUN'}", style="dim")
        print_document(json.loads((folder / "leaderboard.json").read_text(encoding="utf-8")))
        failed = [each for each in failures(folder) if each.sweep == os.environ.get(_NAME)]
        if failed:
            jobs = os.environ.get(_JOBS) or "the"
            listed = "; ".join(f"{each.overrides or each.path.name}: {each.error.rstrip('.')}" for each in failed)
            fail(f"{len(failed)} of {jobs} jobs failed ({listed}); the same command tries them again", status=1)


def _sentence(error: BaseException) -> str:
    """What went wrong; of a bug, its kind as well."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def failures(folder: Path) -> list[Failure]:
    """The jobs of a sweep's folder that have failed and were not run again since."""
    found = []
    for path in sorted(folder.glob(f"*/{FAILURE}")):
        read = json.loads(path.read_text(encoding="utf-8"))
        found.append(Failure(path.parent, " ".join(read["overrides"]), read["error"], read["sweep"]))
    return found


def write_leaderboard(folder: Path) -> str:
    """Write ``leaderboard.md``, ``.html`` and ``.json`` for the finished runs of a sweep's folder.

    Runs that cannot be compared, of different collections for example, leave a sentence in their place.

    Returns:
        The short form for a console.
    """
    with FileLock(folder / ".leaderboard.lock"):  # jobs may end at the same time
        failed = failures(folder)
        told = [f"{each.overrides or each.path.name}: {each.error}" for each in failed]
        document: dict[str, Any] = {"rows": []}
        finished = [path.parent for path in sorted(folder.glob("*/results.json"))]
        try:
            if not finished:
                raise UserError("No job has finished yet.")
            board = leaderboard(finished)
            document, page, html = board.to_dict(), markdown_page(board, told), html_page(board, told)
            brief = brief_page(board, told)
        except UserError as error:
            page = brief = "\n\n".join([f"# Leaderboard\n\n{error}", *(f"Failed: {each}" for each in told)]) + "\n"
            html = f"<!doctype html>\n<meta charset='utf-8'>\n<title>Leaderboard</title>\n<pre>{escape(page)}</pre>\n"
            document["problem"] = str(error)
        document["failed"] = [
            {"path": str(each.path), "overrides": each.overrides, "error": each.error} for each in failed
        ]
        write_text(folder / "leaderboard.md", page)
        write_text(folder / "leaderboard.html", html)
        write_json(folder / "leaderboard.json", finite(document))
    return brief


def _best(folder: Path) -> Path | None:
    """The best row's first run."""
    rows: Sequence[dict[str, Any]] = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))["rows"]
    return Path(rows[0]["runs"][0]["path"]) if rows else None
