"""Runs a Hydra main function so that a mistake ends in one clear sentence and exit status 2."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from two_tower.errors import UserError, one_of

__all__ = ["CONF", "explain", "run_hydra"]

CONF = Path(__file__).parents[2] / "conf"


def run_hydra(main: Callable[[], None], config_name: str) -> None:
    """Call a ``@hydra.main`` function; exit 2 for a user's mistake, with one sentence on stderr.

    Args:
        main: the decorated function.
        config_name: the configuration that it composes, e.g. ``train``.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints several lines and exits 1 by itself
    try:
        main()
    except UserError as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(explain(error, config_name, [a for a in sys.argv[1:] if not a.startswith("-")]))


def _fail(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
    sys.exit(2)


def explain(error: Exception, config_name: str, overrides: list[str]) -> str:
    """One sentence for what Hydra or OmegaConf found wrong, with the nearest valid name."""
    text = str(error)
    missing = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if missing:
        group, choice = missing.groups()
        return f"{group}={choice} does not exist; {one_of(choice, _choices(group))}."
    wrong = re.search(r"Could not override '([^']+)'", text)
    if wrong:
        key = wrong.group(1).partition("@")[0]
        kept = [o for o in overrides if not re.match(rf"[+~]*{re.escape(key)}\s*=", o)]
        valid = _keys(config_name, kept)
        parent, _, _ = key.rpartition(".")
        near = {k for k in valid if k.rpartition(".")[0] == parent} or valid
        return f"{key} does not exist; {one_of(key, near)}."
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            return f"'{override}' is not an override of the form key=value or group=choice."
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    key = getattr(error, "full_key", None)
    return f"Configuration mistake{f' at {key}' if key else ''}: {first.strip().rstrip('.')}."


def _choices(group: str) -> list[str]:
    return [p.stem for p in (CONF / group).glob("*.yaml") if not p.stem.startswith("_")]


def _keys(config_name: str, overrides: list[str]) -> set[str]:
    """Every valid key of the configuration composed with the other overrides."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(config_name, overrides)
    except (HydraException, OmegaConfBaseException):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(config_name)
    groups = {p.name for p in CONF.iterdir() if p.is_dir()}
    return groups | set(_names(OmegaConf.to_container(config)))


def _names(config: Any, place: str = "") -> Iterator[str]:  # noqa: ANN401
    if isinstance(config, Mapping):
        for key, value in config.items():
            name = f"{place}.{key}" if place else str(key)
            if not str(key).startswith("_"):
                yield name
                yield from _names(value, name)
