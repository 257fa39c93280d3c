"""Weights & Biases: without an account or a network unless asked for, and continued under the same id."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only
from pydantic import ValidationError

from two_tower.cache import notice
from two_tower.config.saved import choices_of
from two_tower.console import say
from two_tower.errors import UserError, first_line
from two_tower.files import read_json, write_json, write_text
from two_tower.logger.base import RunLogger
from two_tower.run import Run

log = logging.getLogger(__name__)

STEP = "trainer/global_step"  # the column that is every chart's x axis
SAMPLES = "val/samples"  # the names of tables and histograms
HISTOGRAMS = ("doctor/positive_similarities", "doctor/negative_similarities")

SECONDS_TO_CONNECT = 30.0  # without a network W&B retries for so long; its own 90 s look like a run that hangs
SECONDS_TO_UPLOAD = 600.0  # what is not uploaded by then, without a connection, stays in the folder for `wandb sync`
# If W&B asks its server about a table for longer, later ones are left out: without a connection each takes 19 s.
SECONDS_FOR_TABLES = 5.0
SECONDS_TO_WRITE = 0.1  # a killed process loses what is not in W&B's file by then; its 15 s are more than a short epoch


@dataclass
class Progress:
    """What W&B has of a run, so that a continued run takes the same id and repeats nothing."""

    id: str
    row: int = -1  # the last one of its history, W&B's own ``_step``; -1 before the first
    step: int = -1  # the largest training step in it; -1 before the first

    @classmethod
    def read(cls, path: Path) -> Progress | None:
        match = re.fullmatch(r"(\S+) (-?\d+) (-?\d+) *\n", path.read_text()) if path.exists() else None
        return cls(match[1], int(match[2]), int(match[3])) if match else None

    def write(self, path: Path) -> None:
        """Overwrite the line with one of the same length, in one call: a killed process leaves one or the other."""
        line = f"{self.id} {self.row} {self.step}".ljust(80) + "\n"
        if not path.exists():
            return write_text(path, line)
        with path.open("r+b") as file:
            file.write(line.encode())


class WandbLogger(loggers.WandbLogger, RunLogger):  # type: ignore[misc]  # its log_table takes more
    """A W&B run in the run folder's ``wandb``, beside ``metrics.csv``.

    A row of W&B's history is a training step: what is logged at one step is collected until a value of another step
    comes, or `flush`. W&B refuses rows whose own number (``_step``) is not larger than the last one's, so a value that
    comes late for its step gets a new row; the charts are drawn over ``trainer/global_step`` and show it in its place.
    An interrupted run has logged steps after its last checkpoint: the continued one does not log these again.
    """

    may_repeat = True

    def __init__(
        self, run: Run, project: str = "two-tower", entity: str | None = None, group: str | None = None,
        tags: list[str] | None = None, name: str | None = None, offline: bool = True, artifacts: bool = False,
    ) -> None:  # fmt: skip
        _check_variables()
        if not (offline or logged_in()):
            remedy = "run  wandb login  or set WANDB_API_KEY, or leave logger.offline=true"
            raise ValueError(f"offline=false uploads to W&B and needs an account: {remedy}")
        name = name or run.path.resolve().name
        # Absolute: W&B's own process, which writes the files, stays in the folder in which the first run was started.
        folder = run.path.absolute()
        super().__init__(name, folder, offline=offline, project=project, entity=entity, group=group, tags=tags)
        self._run, self._artifacts, self._status = run, artifacts, "failed"
        self._folder = run.path / "wandb"
        self._progress_file, self._summary_file = self._folder / "run.txt", self._folder / "summary.json"
        self._last_known_step = -1  # the largest step that an interrupted run has logged
        self._row: dict[str, Any] = {}  # the values of the newest step, not handed over yet
        self._row_step = 0
        self._sent_step, self._sent_names = -1, set[str]()  # the last step that was handed over, and what of it
        self._finished, self._trained, self._unreachable, self._lost = False, False, False, False
        self._progress: Progress

    @property
    @rank_zero_experiment
    def experiment(self) -> wandb.Run:
        """The W&B run, started on first use, in the first of several processes only."""
        if self._experiment is None:
            self._experiment = self._start()
        return cast(wandb.Run, self._experiment)

    def _start(self) -> wandb.Run:
        progress = Progress.read(self._progress_file) or Progress(secrets.token_hex(4))
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            mode="offline" if self._offline else "online", silent=True,
            console="off",  # it would put itself between the program and the terminal
            init_timeout=SECONDS_TO_CONNECT, finish_timeout=SECONDS_TO_UPLOAD,
            x_transaction_log_flush_interval=SECONDS_TO_WRITE,
        )  # fmt: skip
        options = {key: self._wandb_init[key] for key in ("project", "entity", "group", "tags", "name", "dir")}
        try:
            # "create_new": never another run of this process, whether finished or not.
            run = wandb.init(**options, id=progress.id, resume="allow", reinit="create_new", settings=settings)
        except (wandb.Error, OSError) as error:
            reason = first_line(error)
            remedy = "is its folder writable?" if self._offline else "logger.offline=true needs no connection."
            raise UserError(f"W&B cannot start a run ({reason}); {remedy}") from error
        progress.row = max(progress.row, run.step - 1)  # the server's count, 0 offline
        progress.write(self._progress_file)
        self._progress, self._last_known_step = progress, progress.step
        if code := read_json(self._run.environment):
            run.config.update({"environment": code}, allow_val_change=True)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        if not self._offline:
            say(f"W&B: {run.url}", style="dim")
        elif summary := read_json(self._summary_file):
            run.summary.update(summary)
        return run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Show the configuration, and under ``choice`` the names of its components."""
        self._trained = True
        super().log_hyperparams({**params, "choice": choices_of(params, self._run.composition())}, *args, **kwargs)

    @rank_zero_only
    def log_histogram(self, name: str, counts: Sequence[int], limits: tuple[float, float], step: int) -> None:
        edges = np.linspace(*limits, len(counts) + 1)
        self.log_metrics({name: wandb.Histogram(np_histogram=(np.array(counts), edges))}, step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Collect values, or media such as tables, of a step; None = the newest. What W&B already has is left out."""
        _ = self.experiment
        at = self._row_step if step is None else step
        metrics = {name: v for name, v in metrics.items() if at != self._sent_step or name not in self._sent_names}
        if self._unreachable:
            metrics = _without_tables(metrics)
        if at <= self._last_known_step or not metrics or self._lost:
            return
        if at != self._row_step:
            self.flush()
        self._row_step = at
        self._row.update(metrics)

    @rank_zero_only
    def alert(self, title: str, text: str, severity: str) -> None:
        self._give(lambda run: run.alert(title, text, "ERROR" if severity == "error" else "WARN"))

    @rank_zero_only
    def summarize(self, values: Mapping[str, Any]) -> None:
        self._give(lambda run: run.summary.update(dict(values)))

    def _give(self, work: Callable[[wandb.Run], object]) -> bool:
        """Do something with the W&B run; False once W&B's own process has gone, without which training goes on."""
        if not self._lost:
            try:
                work(self.experiment)
            except UserError:  # it could not begin
                raise
            except Exception as error:  # of many kinds, some of them private
                self._lost, self._row = True, {}
                log.warning("W&B has gone (%s): its history ends here, metrics.csv has all of it.", first_line(error))
                with suppress(Exception):
                    wandb.teardown()  # else it would tell of the loss again when the program ends
        return not self._lost

    @rank_zero_only
    def flush(self) -> None:
        """Hand over what is collected; a later value of the same step starts a row of its own."""
        if not self._row:
            return
        progress = self._progress
        progress.row = max(self._row_step, progress.row + 1)
        row, start = {**self._row, STEP: self._row_step}, time.monotonic()
        try:
            self.experiment.log(row, step=progress.row, commit=True)
        except (wandb.Error, OSError) as error:  # nothing of it was logged
            without = _without_tables(row)
            if not self._give(lambda run: run.log(without, step=progress.row, commit=True)):
                return
            self._warn_unreachable("tables any more", str(error))
        if time.monotonic() - start > SECONDS_FOR_TABLES and not self._unreachable:
            self._warn_unreachable("tables any more", "its server does not answer")
        progress.step = max(self._row_step, progress.step)
        progress.write(self._progress_file)
        if self._row_step != self._sent_step:
            self._sent_step, self._sent_names = self._row_step, set()
        self._sent_names |= self._row.keys()
        self._row = {}

    def archive(self, kind: str, files: Sequence[Path], mark: str = "") -> bool:
        """Keep files as an artifact. They are not copied: offline they must stay in place until ``wandb sync``."""
        last = self._folder / f"{kind}.txt"
        if self._lost or not self._artifacts or (mark and last.exists() and last.read_text(encoding="utf-8") == mark):
            return False
        metadata = {"run": self._run.path.name, **(self._run.read_results() if self._run.complete else {})}
        artifact = wandb.Artifact(f"{kind}-{self.experiment.id}", type=kind, metadata=metadata)
        for file in files:
            place = file.absolute()  # ``wandb sync`` may be called from another folder
            add = artifact.add_dir if place.is_dir() else artifact.add_file
            add(str(place), name=place.name, policy="immutable", skip_cache=True)  # W&B's cache would be a second copy
        try:
            self.experiment.log_artifact(artifact)
        except (wandb.Error, OSError) as error:
            self._warn_unreachable(f"the {kind}", str(error))
            return False
        write_text(last, mark)
        return True

    def _warn_unreachable(self, what: str, reason: str) -> None:
        """Say what is left out because W&B must ask its server about it; figures wait in its folder."""
        self._unreachable = True
        log.warning("W&B does not take %s: %s", what, reason.splitlines()[0])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Note how training ended; `close` ends the W&B run."""
        if self._experiment is not None and not self._finished:
            self.flush()
            self._status = status

    @rank_zero_only
    def close(self) -> None:
        """End the W&B run, as failed unless `finalize` was called with ``success``; say where it is."""
        if self._experiment is None or self._finished:
            return
        self.flush()
        # A run that was stopped before its first evaluation has ended well without a checkpoint.
        if self._status == "success" and self._trained and self._run.best.exists():
            self.archive("model", [self._run.best, self._run.tokenizer, self._run.config])
        super().finalize(self._status)
        self._finished = True
        if self._give(self._end) and self._offline:
            folder = shlex.quote(str(self._folder))
            commands = f"upload it with  wandb sync {folder}/offline-run-*  or look at it with  wandb leet {folder}"
            say(f"W&B: the run is in {self._folder}; {commands}", style="dim")

    def _end(self, run: wandb.Run) -> None:
        if self._offline:  # for the next start: of several folders ``wandb sync`` takes the last one's summary only
            names = [name for name in run.summary.keys() if not name.startswith("_")]  # noqa: SIM118 (not a mapping)
            write_json(self._summary_file, {name: run.summary.get(name) for name in names})
        run.finish(exit_code=0 if self._status == "success" else 1)


def logged_in() -> bool:
    """Whether W&B has credentials; asks neither for them nor its server."""
    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.Error as error:  # malformed
        raise UserError(f"logger.offline=false: W&B's credentials cannot be used: {error}") from error


def _without_tables(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, wandb.Table)}


def _check_variables() -> None:
    """Read W&B's own settings from the environment; a UserError for a value that it refuses."""
    try:
        wandb.setup(wandb.Settings(silent=True))
    except (ValidationError, wandb.Error) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        name = "WANDB_" + "_".join(map(str, first["loc"])).upper()
        given = [f"{k}={v}" for k, v in os.environ.items() if k.startswith(name) and k != "WANDB_API_KEY"]
        raise UserError(f"W&B refuses its variables ({', '.join(given)}): {first['msg']}; unset them") from error
    if os.environ.get("WANDB_MODE") == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true"):
        notice("W&B is switched off by its variables, which logger=wandb does not heed: use logger=csv.")
