"""Runs train.py and embed.py: Hydra composes, a mistake ends in one clear sentence and exit status 2."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser  # nothing public knows Hydra's own options
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from two_tower.config.explain import check_overrides, explain
from two_tower.config.groups import CONF
from two_tower.config.sweep import Sweep, begin, this_job
from two_tower.errors import UserError, exit_statuses, fail

__all__ = ["CONF", "run_hydra"]


def run_hydra(task: Callable[[DictConfig], Any], config_name: str, sweep: Sweep | None = None) -> None:
    """Compose a configuration from the command line and call ``task`` with it; in a sweep, once per combination.

    Exits as `exit_statuses` says.

    Args:
        task: does the work.
        config_name: the configuration to compose, e.g. ``train``.
        sweep: looks after the jobs of a sweep. Without it, a failing job does not stop the others, and at the end
            the first failure decides the exit status; Hydra's own line before the sentence names the combination.
    """
    started, failures = [False], list[Exception]()

    @wraps(task)
    def guarded(composed: DictConfig) -> None:
        started[0] = True
        in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        if in_sweep and sweep is not None:
            return sweep.run(this_job(), partial(task, composed))
        try:
            task(composed)
        except Exception as error:
            if in_sweep:
                raise
            failures.append(error)  # raised outside of Hydra, which would add a line of its own

    with exit_statuses("the same command continues"):
        sys.argv[1:] = _quoted(sys.argv[1:])
        overrides, multirun = _arguments(sys.argv[1:])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints several lines and exits 1 by itself
        try:
            folder = begin(sweep, config_name, overrides) if sweep is not None and multirun else None
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(guarded)()
            if failures:
                raise failures[0]
        except Exception as error:
            composing = not started[0] and not isinstance(error, UserError | BrokenPipeError)
            if composing or isinstance(error, HydraException | OmegaConfBaseException):
                raise UserError(explain(error, config_name, overrides)) from error
            raise
        if sweep is not None and folder is not None:
            sweep.end(folder)


def _quoted(arguments: list[str]) -> list[str]:
    """The arguments, with paths as Hydra reads them: a sweep's folders have ``=`` and ``,`` in their names."""
    quoted = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        special = re.search(r"[^\w./+-]", value) and "'" not in value and Path(value).exists()
        quoted.append(f"{name}='{value}'" if special else argument)
    return quoted


def _arguments(arguments: list[str]) -> tuple[list[str], bool]:
    """The overrides among the arguments, and whether they are to be run as a sweep.

    Raises:
        UserError: there is no ``conf``, an option that Hydra does not have, or an override that is none.
    """
    if not CONF.is_dir():
        raise UserError(f"{CONF} does not exist: install from a clone with  pip install --editable .")
    parser = get_args_parser()
    parser.error = fail  # type: ignore[method-assign, assignment]
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        plain = unknown[0].lstrip("-")
        hint = f"did you mean {plain}?" if "=" in plain else "settings are written key=value, without dashes"
        raise UserError(f"{unknown[0]} is no option; {hint} (see --help)")
    check_overrides(known.overrides)
    # With --cfg and the like Hydra shows something and runs nothing.
    shows = known.help or known.hydra_help or known.cfg or known.info
    multirun = known.multirun or "hydra.mode=MULTIRUN" in known.overrides
    return known.overrides, multirun and not shows
