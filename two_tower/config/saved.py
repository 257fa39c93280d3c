"""Configurations as files: saved with a run, read back, compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from two_tower.config.renamed import refuse_renamed
from two_tower.errors import UserError

# Keys that do not change what a run computes.
_PLACES = ("run_dir", "console")


class Composition(NamedTuple):
    """How a configuration came about, as far as its values do not tell.

    Attributes:
        choices: group → the name of its choice.
        derived: keys whose value conf/ takes from another key: ``embedding.dim: ${tower.dim}``.
    """

    choices: Mapping[str, str] = {}
    derived: Sequence[str] = ()


def digest(config: Mapping[str, Any]) -> str:
    """8 hexadecimal digits that change with anything that changes what a run computes."""
    relevant = {k: v for k, v in config.items() if k not in _PLACES}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:8]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``key: old → new`` for every leaf in which two configurations differ, places aside."""
    left, right = leaves(old), leaves(new)
    pairs = {key: (left.get(key, "absent"), right.get(key, "absent")) for key in sorted({*left, *right})}
    return [f"{key}: {a} → {b}" for key, (a, b) in pairs.items() if key not in _PLACES and a != b]


def leaves(config: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """``key.key`` → value of every leaf of a configuration, the keys below ``place``."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{place}.{key}" if place else str(key)
        values |= leaves(value, name) if isinstance(value, Mapping) else {name: value}
    return values


def choices_of(config: Mapping[str, Any], composition: Composition) -> dict[str, str]:
    """Group → the name of its choice; without a composition, that of the module or class that it builds."""
    targets = {
        group: str(part["_target_"]).split(".")
        for group, part in config.items()
        if isinstance(part, Mapping) and "_target_" in part
    }
    names = {group: names[-2] if names[0] == "two_tower" else names[-1] for group, names in targets.items()}
    return {group: composition.choices.get(group, name) for group, name in names.items()}


def to_yaml(config: Mapping[str, Any]) -> str:
    """The configuration as YAML text."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def read(path: Path) -> dict[str, Any]:
    """Read a saved configuration; a UserError if the file is missing, is not YAML or holds a renamed key."""
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
