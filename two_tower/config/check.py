"""Checks a configuration before anything loads: keys and types against the signature of each ``_target_``."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from two_tower.config.build import target_of
from two_tower.errors import UserError, one_of

__all__ = ["check", "matches"]


def check(config: DictConfig, extra_keys: Mapping[str, Iterable[str]] | None = None) -> dict[str, Any]:
    """Resolve a composed configuration and check every component against its ``_target_``'s signature.

    Args:
        config: what Hydra composed.
        extra_keys: group → keys that are no arguments of its target but used elsewhere.

    Returns:
        The configuration as plain dicts, lists and scalars.

    Raises:
        UserError: a missing value, an unknown key or a value of the wrong type, with its place.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} is not set and has no default: add {missing[0]}=VALUE to the command.")
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    for key, value in plain.items():
        _check_component(str(key), value, frozenset((extra_keys or {}).get(str(key), ())))
    return typing.cast(dict[str, Any], plain)


def _check_component(place: str, value: Any, extra: frozenset[str] = frozenset()) -> None:  # noqa: ANN401
    if not isinstance(value, Mapping):
        return
    if "_target_" in value:
        _check_arguments(place, value, extra)
    for key, inner in value.items():
        _check_component(f"{place}.{key}", inner)


def _check_arguments(place: str, spec: Mapping[str, Any], extra: frozenset[str]) -> None:
    target = target_of(spec, place)
    parameters = _parameters(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(target)
    for key, value in spec.items():
        if key.startswith("_") or key in extra:
            continue
        if key not in parameters and not open_ended:
            raise UserError(f"{place}.{key} does not exist; {one_of(key, {*parameters, *extra})}.")
        hint = hints.get(key)
        if hint is not None and not isinstance(value, Mapping) and not matches(value, hint):
            raise UserError(f"{place}.{key}={value!r} has the wrong type: it must be {_words(hint)}.")


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a target, those of base classes included where it passes ``**`` on."""
    parameters = dict(inspect.signature(target).parameters)
    parameters.pop("self", None)
    return parameters


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        return {}


def matches(value: Any, hint: Any) -> bool:  # noqa: ANN401
    """Whether a plain configuration value fits a type annotation; unknown annotations accept all."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, a) for a in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (str, Path):
        return isinstance(value, str)
    if origin in (list, tuple, typing.Sequence) or getattr(origin, "__name__", "") == "Sequence":
        return isinstance(value, list) and all(matches(v, arguments[0]) for v in value if arguments)
    return True


def _words(hint: Any) -> str:  # noqa: ANN401
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, arguments))
    if arguments and typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_words(a) for a in arguments)
    return names.get(hint, getattr(hint, "__name__", str(hint)))
