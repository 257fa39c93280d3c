"""A sweep that looks for the best: Optuna chooses what its jobs try, and remembers what came of it.

Several processes may work on a study, started together or later, and any of them may be killed. A job is a trial of
Optuna's with two attributes: ``job``, its number from 0, and ``process``. Locks that the system frees when a process
dies tell whether somebody still works on it; if not, the next process that asks goes on with it.
"""

from __future__ import annotations

import math
import os
import secrets
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from two_tower.errors import UserError
from two_tower.files import finite, write_json

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

Direction = Literal["maximize", "minimize"]
SUMMARY = "study.json"  # in the folder of the sweep


class Pruned(Exception):
    """A run was ended because others are better; the argument is one sentence."""


class Study:
    """The jobs of a study; ``storage`` is a file, or the URL of a database that Optuna knows."""

    def __init__(
        self, folder: Path, storage: str, name: str, metric: str, direction: Direction, pruner: BasePruner | None = None
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.metric, self._folder, self._locks = metric, folder, folder / ".study"
        self._locks.mkdir(parents=True, exist_ok=True)
        self._process = secrets.token_hex(4)
        self._own, self._lock = self._lock_of(self._process), self._lock_of("study")
        with self._lock:
            self._storage = _open(storage)
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, direction=direction, pruner=pruner, load_if_exists=True
            )

    def begin(self, settings: Mapping[str, str]) -> None:
        """Work on the study from now on; jobs that failed in processes that have ended are to be tried again.

        A UserError says where ``settings``, what the jobs have in common, are not those that it began with.
        """
        with self._lock:
            before = self._study.user_attrs.get("settings", settings)
            for key in sorted({*before, *settings}):
                old, new = before.get(key, "absent"), settings.get(key, "absent")
                if old != new:
                    remedy = "choose another hydra.sweep.dir, or delete that folder"
                    raise UserError(f"{self._folder} holds a study with another {key} ({old} → {new}): {remedy}")
            self._study.set_user_attr("settings", dict(settings))
            self._own.acquire()
            for job, trial in self._jobs().items():
                if trial.state.name == "FAIL" and not self._is_held(trial.user_attrs.get("process", "")):
                    self._study.enqueue_trial(trial.params, {"job": job})

    def take(
        self, most: int, total: int, space: Mapping[str, BaseDistribution], sampler: Callable[[int], BaseSampler]
    ) -> dict[int, list[str]]:
        """Up to ``most`` jobs to do now, each with its overrides; none while others do what is left of ``total``.

        First come those whose process has ended, then new ones. ``sampler`` gets the number of the trial it is for.
        """
        from optuna.trial import TrialState

        with self._lock:
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if "job" not in trial.user_attrs or trial.params.keys() != space.keys():
                    self._study.tell(trial.number, state=TrialState.FAIL)  # its process died while it chose the values
            jobs = self._jobs()
            free = [job for job, trial in jobs.items() if self._is_left(job, trial)]
            while len(free) < most and (len(jobs) < total or any(t.state.name == "WAITING" for t in jobs.values())):
                self._study.sampler = sampler(len(self._study.get_trials(deepcopy=False)))
                begun = self._study.ask(dict(space))
                free.append(begun.user_attrs.get("job", len(jobs)))
                begun.set_user_attr("job", free[-1])
                jobs = self._jobs()
            # Two jobs that try the same share a folder: the second waits for what comes of the first.
            busy = [t.params for job, t in jobs.items() if t.state.name == "RUNNING" and job not in free]
            taken = {}
            for job in sorted(free)[:most]:
                if jobs[job].params not in busy:
                    busy.append(jobs[job].params)
                    self._storage.set_trial_user_attr(jobs[job]._trial_id, "process", self._process)
                    taken[job] = _overrides(jobs[job])
            return taken

    def is_over(self, total: int) -> bool:
        """Whether all jobs have ended, in whatever process."""
        jobs = self._jobs()
        return len(jobs) >= total and all(trial.state.is_finished() for trial in jobs.values())

    def hold(self, job: int) -> FileLock:
        """To be held by the process that does a job, which may outlive the one that has taken it."""
        return self._lock_of(f"job-{job}")

    def report(self, job: int, check: int, value: float) -> bool:
        """Tell the figure of a job at a check, from 1; whether the job is not worth going on."""
        trial = self._jobs()[job]._trial_id
        self._storage.set_trial_intermediate_value(trial, check, value)
        return bool(self._study.pruner.prune(self._study, self._storage.get_trial(trial)))

    def tell(self, job: int, value: float | None) -> None:
        """End a job: with its figure, None if it was pruned, NaN if it failed."""
        from optuna.trial import TrialState

        state = TrialState.PRUNED if value is None else TrialState.FAIL if math.isnan(value) else TrialState.COMPLETE
        with self._lock:
            figure = value if state is TrialState.COMPLETE else None
            self._study.tell(self._jobs()[job].number, figure, state, skip_if_finished=True)
            self.write()

    def write(self, over: bool = False) -> None:
        """Write ``study.json``: what was tried, what came of it and, once it is ``over``, which keys matter."""
        jobs = sorted(self._jobs().items())
        complete = [job for job, trial in jobs if trial.state.name == "COMPLETE"]
        best = self._study.best_trial.number if complete else None
        document = {
            "metric": self.metric,
            "direction": self._study.direction.name.lower(),
            "best": next((job for job, trial in jobs if trial.number == best), None),
            "importance": self._importance() if over else {},
            "jobs": [
                {"job": job, "state": trial.state.name.lower(), "value": trial.value, "checks": trial.last_step,
                 "overrides": _overrides(trial)}
                for job, trial in jobs
            ],
        }  # fmt: skip
        write_json(self._folder / SUMMARY, finite(document))

    def _importance(self) -> dict[str, float]:
        """Key → its share of what the figures differ by (fANOVA); empty if they do not differ."""
        import optuna
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # imports scikit-learn, 3 s

        known = [trial for trial in self._jobs().values() if trial.value is not None]
        if len({trial.value for trial in known}) < 2:
            return {}
        whole = optuna.create_study(direction=self._study.direction)  # in which those that were pruned count as well
        for each in known:
            trial = optuna.trial.create_trial(value=each.value, params=each.params, distributions=each.distributions)
            whole.add_trial(trial)
        shares = get_param_importances(whole, evaluator=FanovaImportanceEvaluator(seed=0))
        return {key: float(share) for key, share in shares.items()}

    def _jobs(self) -> dict[int, FrozenTrial]:
        """Number → its newest trial; one that has failed may be tried again in another."""
        trials = self._study.get_trials(deepcopy=False)
        return {trial.user_attrs["job"]: trial for trial in trials if "job" in trial.user_attrs}

    def _is_left(self, job: int, trial: FrozenTrial) -> bool:
        """Whether a job has begun, and nobody does it now."""
        if trial.state.name != "RUNNING" or self._is_held(f"job-{job}"):
            return False
        process = trial.user_attrs.get("process", "")
        return process == self._process or not self._is_held(process)

    def _lock_of(self, name: str) -> FileLock:
        return FileLock(self._locks / f"{name}.lock")

    def _is_held(self, name: str) -> bool:
        try:
            self._lock_of(name).acquire(blocking=False).lock.release()
        except Timeout:
            return True
        return False


class _JournalLock:
    """For Optuna's file. Its own lock outlives a killed process by 30 s, and leaves half of a line as it is."""

    def __init__(self, journal: str) -> None:
        self._journal, self._lock = Path(journal), FileLock(f"{journal}.lock")

    def acquire(self) -> bool:
        self._lock.acquire()
        with self._journal.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            torn = file.read() not in (b"", b"\n")
        if torn:
            os.truncate(self._journal, self._journal.read_bytes().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()


def _open(storage: str) -> BaseStorage:
    from optuna.storages import JournalStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    if "://" in storage:
        return get_storage(storage)
    lock: Any = _JournalLock(storage)
    return JournalStorage(JournalFileBackend(storage, lock))


def _overrides(trial: FrozenTrial) -> list[str]:
    """What a job tries, as it is typed."""
    return [f"{key}={text_of(value, trial.distributions[key])}" for key, value in trial.params.items()]


def text_of(value: Any, distribution: Any) -> str:  # noqa: ANN401
    """A value as it is typed: a number with six digits, where that stays within its limits."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.6g}"
    return short if distribution.low <= float(short) <= distribution.high else repr(value)
