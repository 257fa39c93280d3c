"""Composes parts of train.py's configuration for a command that is not run by Hydra."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from two_tower.config.check import check
from two_tower.config.explain import check_overrides, explain
from two_tower.config.groups import CONF
from two_tower.errors import UserError

__all__ = ["composed", "loader_keys"]


def loader_keys() -> dict[str, Any]:
    """The keys of the group ``data`` that are not the source's, with their types: those of conf/data/_loader.yaml."""
    defaults = yaml.safe_load((CONF / "data" / "_loader.yaml").read_text(encoding="utf-8"))
    return {key: Any if value is None else type(value) for key, value in defaults.items()}


def composed(overrides: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """Some groups of the configuration that train.py has with these overrides, checked.

    The others are composed but not checked, which would import what they name: five seconds for the trainer.

    Args:
        overrides: ``key=value`` and ``group=choice``, as on the command line of train.py.
        groups: which groups.

    Raises:
        UserError: an override that is none, that names what does not exist, or whose value cannot work.
    """
    if not CONF.is_dir():
        raise UserError(f"{CONF} does not exist: install from a clone with  pip install --editable .")
    given = list(overrides)
    check_overrides(given)
    try:
        config = OmegaConf.to_container(_compose(given), resolve=True)
    except Exception as error:  # Hydra's parser raises more than Hydra's own errors
        raise UserError(_explained(error, given)) from error
    assert isinstance(config, dict)
    return check(OmegaConf.create({group: config[group] for group in groups}), {"data": loader_keys()})


def _compose(overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()  # of whoever composed before in this process
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides)


def _explained(error: Exception, overrides: list[str]) -> str:
    several = re.search(r"Ambiguous value for argument '([^']+)'", str(error))
    if several:  # of which train.py -m would make a sweep
        return f"{several[1]} has several values: choose one of them"
    return explain(error, "train", overrides)
