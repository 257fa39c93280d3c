"""Configurations as files: saved with a run, read back, compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from two_tower.config.renamed import refuse_renamed
from two_tower.errors import UserError

__all__ = ["differences", "digest", "leaves", "read", "to_yaml"]

# Keys that do not change what a run computes.
_PLACES = ("run_dir", "console")


def digest(config: Mapping[str, Any]) -> str:
    """8 hexadecimal digits that change with anything that changes what a run computes."""
    kept = {k: v for k, v in config.items() if k not in _PLACES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``key: old → new`` for every leaf in which two configurations differ, places aside."""
    left, right = leaves(old), leaves(new)
    absent = "absent"
    return [
        f"{key}: {left.get(key, absent)} → {right.get(key, absent)}"
        for key in sorted({*left, *right})
        if key.split(".")[0] not in _PLACES and left.get(key, absent) != right.get(key, absent)
    ]


def leaves(config: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """``key.key`` → value of every leaf of a configuration, the keys below ``place``."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{place}.{key}" if place else str(key)
        found.update(leaves(value, name) if isinstance(value, Mapping) else {name: value})
    return found


def to_yaml(config: Mapping[str, Any]) -> str:
    """The configuration as YAML text."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def read(path: Path) -> dict[str, Any]:
    """Read a saved configuration.

    Raises:
        UserError: the file is missing or is not YAML.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: {path.parent} is not the folder of a run.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds no configuration.")
    refuse_renamed(leaves(loaded), path)
    return loaded
