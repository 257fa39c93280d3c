"""Checks a configuration before anything loads: keys and types against the signature of each ``_target_``."""

from __future__ import annotations

import collections.abc
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from two_tower.config.build import target_of
from two_tower.errors import UserError, one_of

# The folder of groups, each a folder of choices: in a wheel inside the package, in a clone beside it.
CONF = next(filter(Path.is_dir, (folder / "conf" for folder in Path(__file__).parents[1:3])))

Composed = DictConfig  # what Hydra composed, for those who only pass it on
Types = Mapping[str, Any]  # key → type annotation

# Key → the smallest and the largest value that works, where no component says so itself.
RANGES: dict[str, tuple[float, float]] = {
    "tower.dim": (1, math.inf),  # before embedding.dim, which follows it, is refused
    "shard_rows": (1, math.inf),
    "seed": (0, 2**32 - 1),  # what NumPy takes
}


def groups() -> frozenset[str]:
    """The names of all groups."""
    return frozenset(path.name for path in CONF.iterdir() if path.is_dir())


def choices(group: str) -> list[str]:
    """The choices of a group; a file whose name begins with ``_`` is a part of others."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


def check(config: DictConfig, extra: Mapping[str, Types] = {}) -> dict[str, Any]:
    """Resolve a composed configuration and check every component against its ``_target_``'s signature.

    Returns it as plain dicts, lists and scalars. Whole numbers given for text become text: a folder may be called 2024.
    ``extra`` has the keys that are no arguments of a target, with their types, by their place: a group, or empty for
    the top level, whose only other keys are then components.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} is not set and has no default: add {missing[0]}=VALUE to the command.")
    for resolve in (False, True):  # first what was written, so that a mistake is named where it was made
        plain = typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=resolve))
        if "" in extra:
            _check_top_level(plain, extra[""])
        for key, value in plain.items():
            _check_component(key, value, extra.get(key, {}))
    _check_values(plain)
    return plain


def _check_top_level(config: dict[str, Any], hints: Types) -> None:
    for key, value in config.items():
        if key in hints:
            config[key] = _checked(key, value, hints[key])
        elif key not in groups():
            raise UserError(f"{key} does not exist; {one_of(key, [*hints, *(k for k in config if k in groups())])}")
        elif isinstance(value, Mapping) and not _is_component(value) and not all(map(_is_component, value.values())):
            raise UserError(f"{key} names no component: choose one with {key}=CHOICE")


def _is_component(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, Mapping) and "_target_" in value


def _check_component(place: str, value: Any, extra: Types) -> None:  # noqa: ANN401
    if not isinstance(value, dict):
        return
    if "_target_" in value:
        _check_arguments(place, value, extra)
    for key, inner in value.items():
        _check_component(f"{place}.{key}", inner, {})


def _check_arguments(place: str, spec: dict[str, Any], extra: Types) -> None:
    target = target_of(spec, place)
    parameters = inspect.signature(target).parameters.values()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    # Arguments without a default that the configuration does not give come from the program.
    valid = {p.name for p in parameters if p.default is not p.empty or p.name in spec} | {*extra}
    hints = {**_hints(target), **extra}
    for key, value in spec.items():
        if key.startswith("_"):
            continue
        if key not in valid and not open_ended:
            raise UserError(f"{place}.{key} does not exist; {one_of(key, valid)}.")
        if key in hints and not _is_component(value):
            spec[key] = _checked(f"{place}.{key}", value, hints[key])


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        return {}


def _checked(place: str, value: Any, hint: Any) -> Any:  # noqa: ANN401
    if matches(value, hint) or (isinstance(value, str) and "${" in value):  # not resolved yet
        return value
    if type(value) is int and matches(str(value), hint):
        return str(value)
    if literals := _choices(hint):
        raise UserError(f"{place}={value} does not exist; {one_of(str(value), literals)}")
    raise UserError(f"{place}={value} has the wrong type: it must be {_words(hint)}")


def _alternatives(hint: Any) -> list[Any]:  # noqa: ANN401
    """The members of a union, else the annotation itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [inner for argument in typing.get_args(hint) for inner in _alternatives(argument)]
    return [hint]


def matches(value: Any, hint: Any) -> bool:  # noqa: ANN401
    """Whether a plain configuration value fits a type annotation; unknown annotations accept all."""
    alternatives = _alternatives(hint)
    if len(alternatives) > 1:
        return any(matches(value, a) for a in alternatives)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in arguments and type(value) in map(type, arguments)  # 1 == True, but is no bool
    if hint is float:
        return type(value) in (int, float) and not math.isnan(value)
    if hint in (bool, int, str, types.NoneType):
        return type(value) is hint
    kind = origin or hint
    if kind in (Any, object) or not inspect.isclass(kind):
        return True
    if issubclass(kind, os.PathLike):
        return isinstance(value, str)
    if isinstance(value, list) and not issubclass(kind, Mapping | str):
        return _items_match(value, kind, arguments)
    return isinstance(value, kind) and not isinstance(value, str)


def _items_match(values: list[Any], kind: type, hints: tuple[Any, ...]) -> bool:
    if kind is tuple and hints and hints[-1] is not ...:
        return len(values) == len(hints) and all(map(matches, values, hints))
    return all(matches(value, hints[0]) for value in values if hints)


def _choices(hint: Any) -> list[str]:  # noqa: ANN401
    """The values of the literals in a type annotation."""
    literals = [a for a in _alternatives(hint) if typing.get_origin(a) is typing.Literal]
    return list(dict.fromkeys(str(value) for literal in literals for value in typing.get_args(literal)))


def _words(hint: Any) -> str:  # noqa: ANN401
    """What a type annotation allows, for people: ``a whole number or null``."""
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    words = []
    for alternative in _alternatives(hint):
        kind = typing.get_origin(alternative) or alternative
        if kind in names:
            words.append(names[kind])
        elif inspect.isclass(kind) and issubclass(kind, list | tuple | Mapping | collections.abc.Sequence):
            words.append("a mapping" if issubclass(kind, Mapping) else "a list")
    return " or ".join(words) or getattr(hint, "__name__", str(hint))


def _check_values(config: Mapping[str, Any]) -> None:
    """Refuse values of the right type that cannot work, where no component of ours looks at them."""
    for key, (smallest, largest) in RANGES.items():
        value = _value(config, key)
        if value is not None and not smallest <= value <= largest:
            limit = f"at least {smallest}" if largest == math.inf else f"from {smallest} to {largest}"
            raise UserError(f"{key}={value} must be {limit}")
    epochs, steps = _value(config, "trainer.max_epochs"), _value(config, "trainer.max_steps")
    if 0 in (epochs, steps):
        raise UserError(f"trainer.{'max_epochs' if epochs == 0 else 'max_steps'}=0 trains nothing: choose at least 1")
    if epochs is not None and epochs < 0 and (steps is None or steps < 0):
        raise UserError(f"trainer.max_epochs={epochs} never ends: choose at least 1, or set trainer.max_steps")
    path = _value(config, "tower.path")
    if path is not None and "tokenizer" in config and _value(config, "tokenizer.path") != path:
        raise UserError(f"tower.path={path} needs that folder's tokenizer: set tokenizer=subword tokenizer.path={path}")


def _value(config: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401
    group, _, name = key.rpartition(".")
    return ((config.get(group) or {}) if group else config).get(name)
