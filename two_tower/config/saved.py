"""Configurations as files: the folder ``conf``; what a run saves, read back and compared; renamed keys, refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from two_tower.errors import UserError, first_line

# A subfolder per group, a file per choice. In a wheel it lies inside the package, in a clone beside it.
CONF = next(filter(Path.is_dir, (folder / "conf" for folder in Path(__file__).parents[1:3])))
_PLACES = ("run_dir", "console", "engine")  # keys and groups that do not change what a run computes


class Composition(NamedTuple):
    """How a configuration came about, as far as its values do not tell."""

    choices: Mapping[str, str] = {}  # group → the name of its choice
    derived: Sequence[str] = ()  # keys whose value conf/ takes from another key: ``embedding.dim: ${tower.dim}``
    overrides: Sequence[str] = ()  # what was typed, in a sweep for this job; empty where no command made it

    @property
    def again(self) -> list[str]:
        """The overrides that make the same model, wherever."""
        return [each for each in self.overrides if re.split("[=.]", each.lstrip("+~"))[0] not in _PLACES]


def groups() -> frozenset[str]:
    """The names of all groups but Hydra's own."""
    return frozenset(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


def choices(group: str) -> list[str]:
    """The choices of a group; a file whose name begins with ``_`` is a part of others."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


def digest(config: Mapping[str, Any]) -> str:
    """8 hexadecimal digits that change with anything that changes what a run computes."""
    relevant = {k: v for k, v in config.items() if k not in _PLACES}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:8]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``key: old → new`` for every leaf in which two configurations differ, places aside, and files that have moved."""
    left, right = leaves(old), leaves(new)
    pairs = {key: (left.get(key, "absent"), right.get(key, "absent")) for key in sorted({*left, *right})}
    return [f"{key}: {a} → {b}" for key, (a, b) in pairs.items() if a != b and _matters(key, str(a), str(b))]


def _matters(key: str, old: str, new: str) -> bool:
    """Whether another value is another run: not that of a file that has moved. Data is compared by its fingerprint."""
    same = key.startswith("data.") or os.path.basename(old) == os.path.basename(new)
    return key.partition(".")[0] not in _PLACES and not (
        same and os.path.isabs(old) and not os.path.exists(old) and os.path.exists(new)
    )


def leaves(config: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """``key.key`` → value of every leaf of a configuration, the keys below ``place``."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{place}.{key}" if place else str(key)
        values |= leaves(value, name) if isinstance(value, Mapping) else {name: value}
    return values


def choices_of(config: Mapping[str, Any], composition: Composition) -> dict[str, str]:
    """Group → the name of its choice; without a composition, that of the module or class that it builds."""
    choices = {}
    for group, part in config.items():
        if isinstance(part, Mapping) and "_target_" in part:
            names = str(part["_target_"]).split(".")
            choices[group] = composition.choices.get(group, names[-2 if names[0] == "two_tower" else -1])
    return choices


def to_yaml(config: Mapping[str, Any]) -> str:
    """The configuration as YAML text."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


class _Saved(dict[str, Any]):
    """A configuration from a file, which is named where a key is asked for that it lacks."""

    path = Path("config.yaml")

    def __missing__(self, key: str) -> Any:  # noqa: ANN401
        raise UserError(f"{self.path} lacks {key!r}, perhaps since it was cut short: restore that file.")


def read(path: Path) -> dict[str, Any]:
    """Read a saved configuration; a UserError if the file is missing, is not YAML or holds a renamed key.

    So it is where a key is taken that the file lacks.
    """
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: {path.parent} is not the folder of a run.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {first_line(error)}.") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds no configuration.")
    refuse_renamed(leaves(loaded), path)
    saved = _Saved(loaded)
    saved.path = path
    return saved


# Old key → new key. A key of a group also stands for that key of its nested components: negatives.NAME.share_batch.
RENAMED = {
    "data.passage_column": "data.positive_column",
    "data.split_seed": "data.dev_seed",
    "embedding.normalise": "embedding.normalize",
    "index.lists": "index.nlist",
    "index.pieces": "index.pq_m",
    "index.probes": "index.nprobe",
    "loss.contrastive": "loss.weights.contrastive",
    "loss.cosine": "loss.weights.cosine",
    "loss.kl": "loss.weights.kl",
    "memory": "cross_batch_memory",
    "memory_start": "cross_batch_start",
    "negatives.mask_known": "negatives.mask_known_positives",
    "negatives.share_batch": "negatives.in_batch_negatives",
}

_NO_HELP = "it did not help (docs/experiments.md); leave it out"
REMOVED = {  # old key → why it is gone and what to do
    "data.pseudo_kinds": _NO_HELP,
    "data.pseudo_queries": _NO_HELP,
    "data.repair_encoding": "run ftfy on the file before (docs/data.md); leave it out",
    "tower.bigrams": _NO_HELP,
    "tower.repeats": _NO_HELP,
}


def refuse_renamed(keys: Iterable[str], file: object = None) -> None:
    """Raise a UserError for the first key, ``group.key`` or ``group.component.key``, that is renamed or gone.

    ``file`` is where they stand, None for a command line.
    """
    start = f"{file}: " if file else ""
    for key in keys:
        group, dot, rest = key.partition(".")
        place, _, name = rest.rpartition(".")
        plain = f"{group}{dot}{name}"
        if plain in REMOVED:
            raise UserError(f"{start}{key} is gone: {REMOVED[plain]}")
        own_name = RENAMED.get(plain, key).removeprefix(f"{group}.")
        if key == own_name or rest.endswith(own_name):
            continue
        nested = place and RENAMED[plain].startswith(f"{group}.")
        new = f"{group}.{place}.{own_name}" if nested else RENAMED[plain]
        raise UserError(f"{start}{key} is now called {new}: write that instead")
