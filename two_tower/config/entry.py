"""Runs train.py and embed.py: Hydra composes, a mistake ends in one clear sentence and exit status 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
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
from two_tower.errors import UserError, exit_statuses, fail

__all__ = ["CONF", "run_hydra"]


def run_hydra(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Compose a configuration from the command line and call ``task`` with it; in a sweep, once per combination.

    Exits as `exit_statuses` says. In a sweep a failing job does not stop the others; at the end the first
    failure decides the exit status, and Hydra's own line in front of the sentence names the combination.

    Args:
        task: does the work.
        config_name: the configuration to compose, e.g. ``train``.
    """
    started, failures = [False], list[Exception]()

    @wraps(task)
    def guarded(composed: DictConfig) -> None:
        started[0] = True
        try:
            task(composed)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failures.append(error)  # raised outside of Hydra, which would add a line of its own

    with exit_statuses("the same command continues"):
        overrides = _overrides(sys.argv[1:])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints several lines and exits 1 by itself
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(guarded)()
            if failures:
                raise failures[0]
        except Exception as error:
            composing = not started[0] and not isinstance(error, UserError | BrokenPipeError)
            if composing or isinstance(error, HydraException | OmegaConfBaseException):
                raise UserError(explain(error, config_name, overrides)) from error
            raise


def _overrides(arguments: list[str]) -> list[str]:
    """The overrides among the arguments.

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
    return known.overrides
