"""Weights & Biases: without an account or a network unless asked for, and continued under the same id."""

from __future__ import annotations

import json
import logging
import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only

from two_tower.config.saved import choices_of
from two_tower.console import say
from two_tower.errors import UserError
from two_tower.files import write_json, write_text
from two_tower.logger.progress import Progress
from two_tower.run import Run

__all__ = ["HISTOGRAMS", "SAMPLES", "STEP", "WandbLogger", "logged_in"]

log = logging.getLogger(__name__)

STEP = "trainer/global_step"  # the column that is every chart's x axis
# Names under which tables and histograms are found.
SAMPLES = "val/samples"
HISTOGRAMS = ("doctor/positive_similarities", "doctor/negative_similarities")

# Without a network W&B tries again until then; its own 90 s look like a run that hangs.
SECONDS_TO_CONNECT = 30.0
# What is not uploaded by then, because the connection is lost, stays in the folder for `wandb sync`.
SECONDS_TO_UPLOAD = 600.0
# A table for which W&B asks its server longer than this is the last one: a lost connection takes 19 s of each.
SECONDS_FOR_TABLES = 5.0
# A killed process loses what W&B has not written to its file by then; its own 15 s are more than a short epoch.
SECONDS_TO_WRITE = 0.1


class WandbLogger(loggers.WandbLogger):
    """A W&B run in the run folder's ``wandb``, beside ``metrics.csv``.

    A row of W&B's history is a training step: what is logged at one step is collected and handed over when a value
    of another step comes, or by `flush`. W&B refuses rows whose own number (``_step``) is not larger than the last
    one's, so a value that comes late for its step gets a new row; the charts are drawn over ``trainer/global_step``
    and show it in its place. An interrupted run has logged steps that are after its last checkpoint: the continued
    one does not log these again.

    Args:
        run: the run folder.
        project: the W&B project.
        entity: user or team; None = the account's default.
        group: which runs belong together.
        tags: to find runs by.
        name: of the run; None = the name of the run folder.
        offline: only write files, which ``wandb sync`` uploads; False uploads while training.
        artifacts: keep the best checkpoint with its tokenizer and configuration as an artifact when the run has ended
            well, and its index once it is embedded.

    Raises:
        UserError: not offline and not logged in.
    """

    def __init__(
        self,
        run: Run,
        project: str = "two-tower",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        name: str | None = None,
        offline: bool = True,
        artifacts: bool = False,
    ) -> None:
        wandb.setup(wandb.Settings(silent=True))
        if not (offline or logged_in()):
            raise UserError(
                "logger.offline=false uploads to W&B and needs an account: run  wandb login  or set WANDB_API_KEY, "
                "or leave logger.offline=true."
            )
        name = name or run.path.resolve().name
        # Absolute: W&B's own process, which writes the files, stays in the folder in which the first run was started.
        folder = run.path.absolute()
        super().__init__(name, folder, offline=offline, project=project, entity=entity, group=group, tags=tags)
        self._run, self._artifacts, self._status = run, artifacts, "failed"
        self._folder = run.path / "wandb"
        self._file, self._kept = self._folder / "run.txt", self._folder / "summary.json"
        self._known = -1  # the largest step that an interrupted run has logged
        self._row: dict[str, Any] = {}  # the values of the newest step, not handed over yet
        self._row_step = 0
        self._done: tuple[int, set[str]] = (-1, set())  # the last step that was handed over, and what of it
        self._finished, self._trained, self._unreachable = False, False, False
        self._progress: Progress

    @property
    @rank_zero_experiment
    def experiment(self) -> wandb.Run:
        """The W&B run, started when first asked for; in the first of several processes only."""
        if self._experiment is None:
            self._experiment = self._start()
        return cast(wandb.Run, self._experiment)

    def _start(self) -> wandb.Run:
        progress = Progress.read(self._file) or Progress(secrets.token_hex(4))
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            mode="offline" if self._offline else "online",
            console="off",  # it would put itself between the program and the terminal
            silent=True,
            init_timeout=SECONDS_TO_CONNECT,
            finish_timeout=SECONDS_TO_UPLOAD,
            x_transaction_log_flush_interval=SECONDS_TO_WRITE,
        )
        chosen = {key: self._wandb_init[key] for key in ("project", "entity", "group", "tags", "name", "dir")}
        try:
            # "create_new": never another run of this process, whether finished or not.
            started = wandb.init(**chosen, id=progress.id, resume="allow", reinit="create_new", settings=settings)
        except wandb.Error as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"W&B cannot start a run ({reason}); logger.offline=true needs no connection.") from error
        progress.row = max(progress.row, started.step - 1)  # the server's count, 0 offline
        progress.write(self._file)
        self._progress, self._known = progress, progress.step
        if (self._run.path / "environment.json").exists():
            code = json.loads((self._run.path / "environment.json").read_text(encoding="utf-8"))
            started.config.update({"environment": code}, allow_val_change=True)
        started.define_metric(STEP)
        started.define_metric("*", step_metric=STEP, step_sync=True)
        if not self._offline:
            say(f"W&B: {started.url}", style="dim")
        elif self._kept.exists():
            started.summary.update(json.loads(self._kept.read_text(encoding="utf-8")))
        return started

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Show the configuration, and under ``choice`` the names of its components."""
        self._trained = True
        super().log_hyperparams({**params, "choice": choices_of(params, self._run.composition())}, *args, **kwargs)

    @rank_zero_only
    def log_histogram(self, name: str, counts: Sequence[int], limits: tuple[float, float], step: int) -> None:
        """Log counts of equal parts of a range."""
        edges = np.linspace(*limits, len(counts) + 1)
        self.log_metrics({name: wandb.Histogram(np_histogram=(np.array(counts), edges))}, step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Collect values, or media such as tables, of a step; None = of the newest one. What W&B has is left out."""
        _ = self.experiment
        at = self._row_step if step is None else step
        done_step, done = self._done
        metrics = {name: v for name, v in metrics.items() if at != done_step or name not in done}
        if self._unreachable:
            metrics = _without_tables(metrics)
        if at <= self._known or not metrics:
            return
        if at != self._row_step:
            self.flush()
        self._row_step = at
        self._row.update(metrics)

    @rank_zero_only
    def alert(self, title: str, text: str, severity: str) -> None:
        """Send an alert, by mail or Slack as the account says."""
        self.experiment.alert(title, text, "ERROR" if severity == "error" else "WARN")

    @rank_zero_only
    def summarise(self, values: Mapping[str, Any]) -> None:
        """Put values into the run's summary."""
        self.experiment.summary.update(dict(values))

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
        except wandb.Error as error:  # nothing of it was logged
            self._failed("tables any more", str(error))
            self.experiment.log(_without_tables(row), step=progress.row, commit=True)
        if time.monotonic() - start > SECONDS_FOR_TABLES and not self._unreachable:
            self._failed("tables any more", "its server does not answer")
        progress.step = max(self._row_step, progress.step)
        progress.write(self._file)
        done_step, done = self._done
        self._done = (self._row_step, {*self._row} | (done if self._row_step == done_step else set()))
        self._row = {}

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Nothing: what the interrupted run logged from ``step`` on stays, and is not logged again."""

    @rank_zero_only
    def archive(self, kind: str, files: Sequence[Path], mark: str = "") -> bool:
        """Keep files or folders as an artifact of the run, if it is to have any.

        Args:
            kind: ``model`` or ``index``.
            files: as they are; they are not copied, so offline they must stay in their place until ``wandb sync``.
            mark: tells these files from others of the kind; what was kept last under the same one is left out.

        Returns:
            Whether they were kept.
        """
        last = self._folder / f"{kind}.txt"
        if not self._artifacts or (mark and last.exists() and last.read_text(encoding="utf-8") == mark):
            return False
        artifact = wandb.Artifact(f"{kind}-{self.experiment.id}", type=kind, metadata=self._results())
        for file in files:
            place = file.absolute()  # ``wandb sync`` may be called from another folder
            add = artifact.add_dir if place.is_dir() else artifact.add_file
            add(str(place), name=place.name, policy="immutable", skip_cache=True)  # W&B's cache would be a second copy
        try:
            self.experiment.log_artifact(artifact)
        except wandb.Error as error:
            self._failed(f"the {kind}", str(error))
            return False
        write_text(last, mark)
        return True

    def _failed(self, what: str, reason: str) -> None:
        """Say what W&B, which asks its server about tables and artifacts, cannot take; figures wait in its folder."""
        self._unreachable = True
        log.warning("W&B does not take %s: %s", what, reason.splitlines()[0])

    def _results(self) -> dict[str, Any]:
        results = self._run.read_results() if self._run.complete else {}
        return {"run": self._run.path.name, **results}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Hand over what is collected, and note how training ended; the W&B run is ended by `close`."""
        if self._experiment is not None and not self._finished:
            self.flush()
            self._status = status

    @rank_zero_only
    def close(self) -> None:
        """End the W&B run, as failed unless `finalize` was called with ``success``; say where it is."""
        if self._experiment is None or self._finished:
            return
        self.flush()
        # A run that was stopped before its first check has ended well without a checkpoint.
        if self._status == "success" and self._trained and self._run.best.exists():
            self.archive("model", [self._run.best, self._run.tokenizer, self._run.config])
        super().finalize(self._status)
        self._keep_summary()
        self._finished = True
        self._experiment.finish(exit_code=0 if self._status == "success" else 1)
        if self._offline:
            folder = shlex.quote(str(self._folder))
            say(
                f"W&B: the run is in {self._folder}; upload it with  wandb sync {folder}/offline-run-*  or look at it "
                f"with  wandb leet {folder}",
                style="dim",
            )

    def _keep_summary(self) -> None:
        """Write the summary down for the next start: of several folders ``wandb sync`` takes the last one's only."""
        if self._offline:
            summary = self.experiment.summary
            names = [name for name in summary.keys() if not name.startswith("_")]  # noqa: SIM118 (it is no mapping)
            write_json(self._kept, {name: summary.get(name) for name in names})


def logged_in() -> bool:
    """Whether W&B finds credentials; never asks for them, nor the server."""
    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.Error as error:  # of a wrong form
        raise UserError(f"logger.offline=false: W&B's credentials cannot be used: {error}") from error


def _without_tables(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, wandb.Table)}
