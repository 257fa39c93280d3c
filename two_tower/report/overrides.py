"""What distinguishes configurations, as a person would write it on the command line."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from two_tower.config.saved import Composition, choices_of, leaves

# Keys that make a run another run of the same experiment; `embedding.seed` follows `seed`.
_SAME_EXPERIMENT = ("seed", "run_dir")
# What is shown or stored of a run, and how fast its batches come: the model is the same.
_NO_EFFECT = (
    "console", "logger", "callbacks.samples", "callbacks.speed", "callbacks.last", "data.num_workers",
    "trainer.log_every_n_steps", "trainer.enable_progress_bar", "trainer.enable_model_summary",
)  # fmt: skip
LONGEST_NAME = 80  # characters; a table has no room for longer overrides


def experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """``key.key`` → value of each leaf of a configuration that may change the result, seeds left out."""
    without_effect = tuple(f"{key}." for key in _NO_EFFECT)
    return {
        key: value
        for key, value in leaves(config).items()
        if key.split(".")[-1] not in _SAME_EXPERIMENT and not f"{key}.".startswith(without_effect)
    }


def distinguish(
    configs: Sequence[Mapping[str, Any]], compositions: Sequence[Composition] | None = None
) -> list[dict[str, Any]]:
    """For each of several configurations the keys in which they differ, with its own values.

    Another component is shown by its choice (``tower: gru``), and the keys that only come with it are left out; so
    are keys that conf/ derives from another key. A key that only some configurations of one component have
    (``+trainer.limit_train_batches=30``) is None for the others.

    Args:
        configs: resolved configurations, no two of them equal up to the seed.
        compositions: what they were composed from, where that is known.
    """
    compositions = compositions or [Composition()] * len(configs)
    compared = [experiment(config) for config in configs]
    keys = sorted({key for each in compared for key in each})
    different = [key for key in keys if len({repr(each.get(key)) for each in compared}) > 1]
    optional = {key for key in different if _is_optional(key, compared)}
    shown = [
        key
        for key in different
        if (key in optional or len({repr(each[key]) for each in compared if key in each}) > 1)
        and not all(key in c.derived for c, each in zip(compositions, compared, strict=True) if key in each)
    ]
    named = [
        _name_choices(
            {key: each.get(key) for key in shown if key in each or key in optional}, choices_of(config, source)
        )
        for each, config, source in zip(compared, configs, compositions, strict=True)
    ]
    if len({repr(each) for each in named}) == len(named):
        return named
    return [{key: each.get(key) for key in different} for each in compared]


def _is_optional(key: str, compared: Sequence[Mapping[str, Any]]) -> bool:
    """Whether only some have a key, though every component around it is the same in all."""
    parts = key.split(".")
    around = [".".join([*parts[:depth], "_target_"]) for depth in range(1, len(parts))]
    components = {tuple(each.get(target) for target in around) for each in compared}
    return len(components) == 1 and any(key not in each for each in compared)


def _name_choices(values: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, Any]:
    """The leaves with ``tower: gru`` for ``tower._target_``."""
    renamed = {key: key.removesuffix("._target_") for key in values}
    return {renamed[key]: choices.get(renamed[key], v) if key != renamed[key] else v for key, v in values.items()}


def typed(overrides: Mapping[str, Any]) -> str:
    """Overrides as they are typed on the command line."""
    return " ".join(f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in overrides.items())


def row_names(overrides: Sequence[Mapping[str, Any]], folders: Sequence[Sequence[Path]]) -> list[str]:
    """A name for each of several configurations: their overrides, or if these are long, what their folders begin with.

    Args:
        overrides: what distinguishes each from the others.
        folders: those of its runs: ``gru_0`` and ``gru_1`` are called ``gru``.
    """
    names = [typed(each) or paths[0].name for each, paths in zip(overrides, folders, strict=True)]
    if max(map(len, names)) <= LONGEST_NAME:
        return names
    prefixes = [_common_words([path.name for path in paths]) for paths in folders]
    return prefixes if all(prefixes) and len(set(prefixes)) == len(prefixes) else names


def _common_words(names: Sequence[str]) -> str:
    """The words that several names begin with."""
    words = zip(*(re.split(r"([\W_]+)", name) for name in names), strict=False)
    shared = itertools.takewhile(lambda each: len(set(each)) == 1, words)
    return re.sub(r"[\W_]+$", "", "".join(word for word, *_ in shared))
