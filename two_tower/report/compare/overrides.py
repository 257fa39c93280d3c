"""What tells configurations apart, as a person would write it on the command line."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from two_tower.config.groups import CONF, choices
from two_tower.config.saved import leaves

__all__ = ["choices_of", "distinguish", "experiment", "row_names", "typed"]

# Keys that make a run another run of the same experiment; `embedding.seed` follows `seed`.
_SAME_EXPERIMENT = ("seed", "run_dir")
# What is shown or stored of a run, and how fast its batches come: the model is the same.
_BESIDE = (
    "console",
    "logger",
    "callbacks.samples",
    "callbacks.speed",
    "callbacks.last",
    "data.num_workers",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)

# Characters; longer overrides are no name that a table has room for.
LONGEST_NAME = 80


def experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """``key.key`` → value of each leaf of a configuration that may change the result, seeds left out."""
    beside = tuple(f"{each}." for each in _BESIDE)
    return {
        key: value
        for key, value in leaves(config).items()
        if key.split(".")[-1] not in _SAME_EXPERIMENT and not f"{key}.".startswith(beside)
    }


def distinguish(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each of several configurations the keys in which they differ, with its own values.

    Another component is told by its name (``tower: gru``), and the keys that only come with it are left out; so
    are keys that take their value from another key. A key that only some configurations of one component have
    (``+trainer.limit_train_batches=30``) is None for the others.

    Args:
        configs: resolved configurations, no two of them equal up to the seed.
    """
    compared = [experiment(config) for config in configs]
    keys = sorted({key for each in compared for key in each})
    optional = {key for key in keys if _optional(key, compared)}
    shown = [
        key
        for key in keys
        if len({repr(each.get(key)) for each in compared if key in each or key in optional}) > 1
        and not all(_follows(key, config) for config, each in zip(configs, compared, strict=True) if key in each)
    ]
    told = [
        _named({key: each.get(key) for key in shown if key in each or key in optional}, config)
        for config, each in zip(configs, compared, strict=True)
    ]
    if len({repr(each) for each in told}) == len(told):
        return told
    shown = [key for key in keys if len({repr(each.get(key)) for each in compared}) > 1]
    return [{key: each.get(key) for key in shown} for each in compared]


def typed(overrides: Mapping[str, Any]) -> str:
    """Overrides as they are typed on the command line."""
    return " ".join(f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in overrides.items())


def choices_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Group → the name of the choice that each component of a configuration was most likely made from."""
    groups = {group: part for group, part in config.items() if isinstance(part, Mapping) and "_target_" in part}
    return {
        group: _choice(group, part)[0] or str(part["_target_"]).rpartition(".")[2] for group, part in groups.items()
    }


def row_names(overrides: Sequence[Mapping[str, Any]], folders: Sequence[Sequence[Path]]) -> list[str]:
    """A name for each of several configurations: their overrides, or if these are long, what their folders begin with.

    Args:
        overrides: what tells each from the others.
        folders: those of its runs: ``gru_0`` and ``gru_1`` are called ``gru``.
    """
    names = [typed(each) or paths[0].name for each, paths in zip(overrides, folders, strict=True)]
    if max(map(len, names)) <= LONGEST_NAME:
        return names
    begin = [_beginning([path.name for path in paths]) for paths in folders]
    return begin if all(begin) and len(set(begin)) == len(begin) else names


def _beginning(names: Sequence[str]) -> str:
    """The words that several names begin with."""
    words = zip(*(re.split(r"([\W_]+)", name) for name in names), strict=False)
    shared = itertools.takewhile(lambda each: len(set(each)) == 1, words)
    return re.sub(r"[\W_]+$", "", "".join(word for word, *_ in shared))


def _optional(key: str, compared: Sequence[Mapping[str, Any]]) -> bool:
    """Whether only some have a key, though every component around it is the same in all."""
    parts = key.split(".")
    around = [".".join([*parts[:depth], "_target_"]) for depth in range(1, len(parts))]
    components = {tuple(each.get(target) for target in around) for each in compared}
    return len(components) == 1 and any(key not in each for each in compared)


def _named(told: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves with ``tower: gru`` for ``tower._target_``."""
    named: dict[str, Any] = {}
    for key, value in told.items():
        group, _, rest = key.partition(".")
        if rest == "_target_":
            named[group] = _choice(group, config[group])[0] or str(value).rpartition(".")[2]
        else:
            named[key] = value
    return named


def _choice(group: str, component: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name and leaves of the file in conf/GROUP that a component was most likely composed from; empty if none was."""
    own = leaves(component)
    alike = [
        (sum(own.get(key) == value for key, value in written.items()), name, written)
        for name, written in _files(group).items()
        if written.get("_target_") == own.get("_target_")
    ]
    _, name, written = max(alike, key=lambda file: file[0], default=(0, "", {}))
    return name, written


@cache
def _files(group: str) -> Mapping[str, Mapping[str, Any]]:
    """Choice → leaves of its file, references to other keys as they are written."""
    loaded = {name: yaml.safe_load((CONF / group / f"{name}.yaml").read_text("utf-8")) for name in choices(group)}
    return {name: leaves(each) if isinstance(each, dict) else {} for name, each in loaded.items()}


def _follows(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a key has the value of another one, because conf says ``key: ${other}``."""
    group, _, rest = key.partition(".")
    if not isinstance(config[group], Mapping):
        return False
    source = re.fullmatch(r"(.*)\$\{([\w.]+)\}", str(_choice(group, config[group])[1].get(rest)))
    if source is None:
        return False
    own = leaves(config)
    value = own.get(source[2])
    return own[key] == (f"{source[1]}{value}" if source[1] else value)
