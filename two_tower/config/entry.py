"""Runs ``train`` and ``embed``: Hydra composes, in a sweep once per job; mistakes end in one sentence and status 2."""

from __future__ import annotations

import argparse
import copy
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from unicodedata import category

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from two_tower.config.compose import check_overrides, compose_raw, explain
from two_tower.config.literal import MoreTypes, as_typed
from two_tower.config.saved import CONF, Composition, leaves
from two_tower.config.sweeper import OptunaSweeper, Search, samples, space_of
from two_tower.errors import UserError, exit_statuses, fail
from two_tower.study import Study

# Characters of a folder's name, and of a value in it; file systems take 255 bytes.
LONGEST_NAME, LONGEST_VALUE = 200, 24
OPTUNA = "optuna"  # the choice of hydra/sweeper that looks for the best


class Job(NamedTuple):
    """What Hydra knows of the work at hand."""

    composition: Composition
    overrides: tuple[str, ...]  # what distinguishes it from the default configuration, as typed
    sweep: Path | None  # folder of the sweep that it belongs to; None for a single run
    folder: Path  # in a sweep, where it works; its name stands for the overrides
    number: int  # its position in the sweep, from 0
    study: Study | None = None  # what chose it and is told what comes of it; None unless a study does


class Sweep(Protocol):
    """What a command does around the jobs of a sweep. A launcher may copy it into other processes."""

    def check(self, composed: DictConfig, metric: str | None = None) -> object:
        """Raise a UserError for a combination that cannot work; called for each before any job starts.

        In a study also if no job would have the figure ``metric``; there some combinations stand for all.
        """

    def begin(self, folder: Path, jobs: int | None, composed: DictConfig) -> None:
        """The sweep starts, with this many jobs if that is known, and this configuration but for what is swept."""

    def run(self, job: Job, work: Callable[[], float | None]) -> float | None:
        """Do one job and return its objective, for the sweeper. What it raises ends the whole sweep."""

    def end(self, folder: Path) -> None:
        """All jobs have been done, perhaps by other processes; exits if the sweep has failed."""


def run_hydra(
    task: Callable[[DictConfig], Any], config_name: str, sweep: Sweep | None = None, more_types: MoreTypes = dict
) -> None:  # fmt: skip
    """Compose a configuration from the command line and call ``task`` with it; in a sweep, once per combination.

    Exits as `exit_statuses` says. ``config_name``, e.g. ``train``, as first argument (``two-tower train …``) is the
    command, no override. Without ``sweep`` a failing job does not stop the others of a sweep, and at the end the first
    failure decides the exit status; Hydra's own line before the sentence names the combination. ``more_types``:
    see `two_tower.config.literal.as_typed`.
    """
    command, started, failures = sys.argv[:], [False], list[Exception]()

    @wraps(task)
    def guarded(composed: DictConfig) -> Any:  # noqa: ANN401
        started[0] = True
        sys.argv[:] = command  # Lightning starts its other processes with it
        in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        if in_sweep and sweep is not None:
            return sweep.run(this_job(composed), partial(task, composed))
        try:
            return task(composed)
        except Exception as error:
            if in_sweep:
                raise
            failures.append(error)  # raised outside of Hydra, which would add a line of its own
            return None

    with exit_statuses("the same command continues"):
        arguments = command[2:] if command[1:2] == [config_name] else command[1:]
        typed, multirun = _read_arguments(arguments)
        flags = [each for each in arguments if each not in typed]
        overrides = as_typed(typed, partial(compose_raw, config_name, hydra_config=True), more_types, multirun)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints several lines and exits 1 by itself
        try:
            folder = _begin(sweep, config_name, overrides) if sweep is not None and multirun else None
            sys.argv[1:] = [*flags, *overrides]
            if flags or any(each.lstrip("+~").startswith("hydra") for each in overrides):
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(guarded)()
            else:
                guarded(_composed_once(config_name, overrides))
            if failures:
                raise failures[0]
        except Exception as error:
            composing = not started[0] and not isinstance(error, UserError | BrokenPipeError)
            if composing or isinstance(error, HydraException | OmegaConfBaseException):
                raise UserError(explain(error, config_name, overrides)) from error
            raise
        finally:
            sys.argv[:] = command
        if sweep is not None and folder is not None:
            sweep.end(folder)


def _composed_once(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """What `hydra.main` passes to a single run, which it composes twice, for its mode first; that takes 0.2 s."""
    composed = compose_raw(config_name, overrides, hydra_config=True)
    HydraConfig.instance().set_config(composed)
    task = copy.deepcopy(composed)
    with open_dict(task):
        del task["hydra"]
    return task


def this_job(composed: DictConfig) -> Job:
    """The job that the process works on."""
    settings = HydraConfig.get()
    overrides = tuple(settings.overrides.task)
    composition = composition_of(composed, settings.runtime.choices)._replace(overrides=overrides)
    if settings.mode != RunMode.MULTIRUN:
        return Job(composition, overrides, None, Path(), 0)
    folder, number, study = Path(settings.sweep.dir), int(settings.job.num), None
    if settings.runtime.choices["hydra/sweeper"] == OPTUNA:
        number, study = settings.sweeper.job, Search.of(settings).study(folder)
    return Job(composition, overrides, folder, Path(settings.runtime.output_dir), number, study)


def composition_of(composed: DictConfig, choices: Any) -> Composition:  # noqa: ANN401
    """How a configuration came about, given Hydra's ``runtime.choices``."""
    written = leaves(OmegaConf.to_container(composed))  # type: ignore[arg-type]
    derived = [key for key, value in written.items() if isinstance(value, str) and "${" in value]
    return Composition({k: v for k, v in choices.items() if v and not k.startswith("hydra/")}, derived)


def folder_name(overrides: str) -> str:
    """The name of a job's folder: its overrides, as far as a file system takes them and people read them.

    Of a long value, a path for example, the end is kept. A checksum tells apart what is replaced or cut off, and
    what is not ASCII: some file systems have one name for two ways to write ``é``.
    """
    encoding = sys.getfilesystemencoding()
    items = [item.partition("=") for item in re.sub(r"[\\'\"]", "", overrides).split(",")]
    short = ",".join(f"{key}{equals}{value[-LONGEST_VALUE:]}" for key, equals, value in items)
    kept = "".join(each if each in ".,=+@-_" or category(each)[0] in "LMN" else "\0" for each in short)
    name = re.sub("\0+", "-", kept).encode(encoding, "ignore")[:LONGEST_NAME].decode(encoding, "ignore").strip("-.")
    if name == overrides and name.isascii():
        return name or "default"
    return f"{name}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}".strip("-")


OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)  # conf/train.yaml names jobs with it


def _begin(sweep: Sweep, config_name: str, overrides: Sequence[str]) -> Path:
    """Check every combination of a sweep before any job starts, and begin it; returns its folder."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):  # glob(*) asks it for the choices
        parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(overrides))
    fixed = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
    settings = compose_raw(config_name, fixed, hydra_config=True)
    if settings.get("run_dir") is not None:
        remedy = "in a sweep write hydra.sweep.dir=FOLDER, in which each job has a folder of its own."
        raise UserError(f"run_dir={settings.run_dir} is the folder of one run: {remedy}")
    combinations, jobs, metric = _combinations(settings.hydra, [each for each in parsed if each.is_sweep_override()])
    for swept in combinations or [()]:
        try:
            sweep.check(compose_raw(config_name, [*fixed, *swept]), metric)
        except UserError as error:
            raise UserError(f"{error} (in the job {' '.join(swept)})" if swept else str(error)) from error
    folder = Path(settings.hydra.sweep.dir)
    sweep.begin(folder, jobs, settings)
    return folder


def _combinations(
    hydra: DictConfig, axes: Sequence[Override]
) -> tuple[list[tuple[str, ...]], int | None, str | None]:  # fmt: skip
    """Each job's own overrides, how many jobs there are, and which figure a study compares.

    A study chooses its jobs while it runs, so some stand for all. Of another sweeper's nothing is known.
    """
    chosen = hydra.runtime.choices["hydra/sweeper"]
    if chosen == OPTUNA:
        search = Search.of(hydra)
        OptunaSweeper.register()
        return samples(space_of(axes)), search.n_trials, search.metric
    if chosen != "basic":
        return [], None, None
    for axis in axes:
        if axis.is_interval_sweep():
            raise UserError(f"{axis.input_line} has no end of values: add hydra/sweeper={OPTUNA}, which chooses some")
    swept = [[f"{axis.get_key_element()}={value}" for value in axis.sweep_string_iterator()] for axis in axes]
    jobs = list(itertools.product(*swept))
    return jobs, len(jobs), None


def _read_arguments(arguments: list[str]) -> tuple[list[str], bool]:
    """The overrides among the arguments, and whether they are to be run as a sweep."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.error = fail  # type: ignore[method-assign, assignment]
    parser.add_argument("overrides", nargs="*")
    # Hydra's own options. These show something and run nothing:
    for flags in (["--help", "-h"], ["--hydra-help"], ["--version"], ["--shell-completion", "-sc"]):
        parser.add_argument(*flags, dest="shows", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--info", "-i", nargs="?", const="all")
    for flags in (["--multirun", "-m"], ["--run", "-r"], ["--resolve"]):
        parser.add_argument(*flags, action="store_true")
    for flags in (["--package", "-p"], ["--config-path", "-cp"], ["--config-name", "-cn"], ["--config-dir", "-cd"]):
        parser.add_argument(*flags)
    known, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        plain = unknown[0].lstrip("-")
        hint = f"did you mean {plain}?" if "=" in plain else "settings are written key=value, without dashes"
        raise UserError(f"{unknown[0]} is no option; {hint} (see --help)")
    check_overrides(known.overrides)
    multirun = known.multirun or "hydra.mode=MULTIRUN" in known.overrides
    return known.overrides, multirun and not (known.shows or known.cfg or known.info)
