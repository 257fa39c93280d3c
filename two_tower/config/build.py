"""The components of a configuration: checked before anything loads, then built; the project's one use of ``_target_``.

Keys and types are checked against the signature of each ``_target_``.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from two_tower.config.saved import groups, leaves
from two_tower.errors import UserError, first_line, one_of

Composed = DictConfig  # what Hydra composed, for those who only pass it on
Types = Mapping[str, Any]  # key → type annotation

# Key → the smallest and the largest value that works, where no component says so itself.
RANGES: dict[str, tuple[float, float]] = {
    "tower.dim": (1, math.inf),  # before embedding.dim, which follows it, is refused
    "shard_rows": (1, math.inf),
    "seed": (0, 2**32 - 1),  # what NumPy takes
}


def is_component(value: Any) -> bool:  # noqa: ANN401
    """Whether a value of a configuration is built, and so has keys of its own."""
    return isinstance(value, Mapping) and "_target_" in value


def target_of(spec: Mapping[str, Any], place: str = "") -> Callable[..., Any]:
    """The class or function that a component's ``_target_`` names; a UserError if it cannot be imported."""
    name = str(spec.get("_target_", ""))
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # the last for names that begin with a dot
        raise UserError(f"{place or 'component'}._target_={name} cannot be imported: {error}.") from error


def build(place: str, spec: Mapping[str, Any], offer: Mapping[str, Any] | None = None, **extra: Any) -> Any:  # noqa: ANN401
    """Call a component's ``_target_`` with its keys; nested components are built first.

    A component does not know where it stands in the configuration, its place, such as ``loss.triplet``. It raises
    ``ValueError("margin=-1 must be above 0")``, and the place is put in front here. With ``_partial_: true`` a partial
    function is returned. Of the arguments in ``offer`` the target gets those that it has parameters for.
    """
    target = target_of(spec, place)
    keys = {k: v for k, v in spec.items() if not k.startswith("_")}
    keys |= {k: build(f"{place}.{k}", v) for k, v in keys.items() if is_component(v)}
    if offer:
        accepted = inspect.signature(target).parameters
        keys.update({k: v for k, v in offer.items() if k in accepted})
    keys.update(extra)
    if spec.get("_partial_"):
        return partial(call, place, target, **keys)
    return call(place, target, **keys)


def call(place: str, target: Callable[..., Any], *args: Any, **keys: Any) -> Any:  # noqa: ANN401
    """``target(*args, **keys)``; of a value that it refuses, a UserError that names the place."""
    inner = target.func if isinstance(target, partial) else target
    ours, name = inner.__module__.startswith("two_tower."), getattr(inner, "__name__", str(inner))
    try:
        if ours:
            inspect.signature(target).bind(*args, **keys)
    except TypeError as error:
        raise UserError(f"{place} ({name}) cannot be built: {error}; its YAML file must have its keys.") from error
    try:
        return target(*args, **keys)
    except UserError:
        raise
    except Exception as error:
        if not ours:
            raise UserError(f"{place} ({name}) refuses its settings: {first_line(error)}") from error
        if not isinstance(error, ValueError):  # a bug
            raise
        raise UserError(f"{place}.{error}" if place else str(error)) from error


def check(config: DictConfig, extra: Mapping[str, Types] = {}) -> dict[str, Any]:
    """Resolve a composed configuration and check every component against its ``_target_``'s signature.

    Returns it as plain dicts, lists and scalars. Numbers given for text become text: a folder may be called 2024.
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
        elif isinstance(value, Mapping) and not is_component(value) and not all(map(is_component, value.values())):
            raise UserError(f"{key} names no component: choose one with {key}=CHOICE")


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
    hints = {**argument_types(target), **extra}
    for key, value in spec.items():
        if key.startswith("_"):
            continue
        if key not in valid and not open_ended:
            raise UserError(f"{place}.{key} does not exist; {one_of(key, valid)}.")
        if key in hints and not is_component(value):
            spec[key] = _checked(f"{place}.{key}", value, hints[key])


def argument_types(target: Callable[..., Any]) -> dict[str, Any]:
    """Argument → type annotation of a class or function; empty where only a type checker can resolve them."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}


def _checked(place: str, value: Any, hint: Any) -> Any:  # noqa: ANN401
    if type(value) in (bool, int, float) and not matches(value, hint) and matches(written(value), hint):
        value = written(value)
    if matches(value, hint) or (isinstance(value, str) and "${" in value):  # not resolved yet
        is_path = isinstance(value, str) and value and any(map(_is_path, alternatives(hint)))
        return _absolute(value) if is_path else _checked_items(place, value, hint)
    choices = _choices(hint)
    if choices:
        raise UserError(f"{place}={value} does not exist; {one_of(str(value), choices)}")
    raise UserError(f"{place}={value} has the wrong type: it must be {in_words(hint)}")


def _checked_items(place: str, value: Any, hint: Any) -> Any:  # noqa: ANN401
    """A mapping of texts with each of them checked; another value as it is."""
    of_values = items_of(hint)
    if not is_text(of_values) or not isinstance(value, dict):
        return value
    return {key: _checked(f"{place}.{key}", each, of_values) for key, each in value.items()}


def items_of(hint: Any) -> Any:  # noqa: ANN401
    """The annotation of a mapping's values; None where there is none."""
    mappings = (a for a in alternatives(hint) if typing.get_origin(a) in (dict, collections.abc.Mapping))
    return next((typing.get_args(a)[1] for a in mappings), None)


def _absolute(value: str) -> str:
    """A file or folder that exists, as a later command finds it from another folder; a name on a hub stays as it is."""
    path = os.path.abspath(os.path.expanduser(value))
    return path if os.path.exists(path) else value


def written(value: Any) -> str:  # noqa: ANN401
    """A scalar as a command line has it: ``true``, ``0.5``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_path(hint: Any) -> bool:  # noqa: ANN401
    return inspect.isclass(hint) and issubclass(hint, os.PathLike)


def is_text(hint: Any) -> bool:  # noqa: ANN401
    """Whether an annotation takes texts or paths and nothing else, but perhaps null."""
    kinds = [each for each in alternatives(hint) if each not in (None, types.NoneType)]
    return bool(kinds) and all(each is str or _is_path(each) for each in kinds)


def alternatives(hint: Any) -> list[Any]:  # noqa: ANN401
    """The members of a union, else the annotation itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [inner for argument in typing.get_args(hint) for inner in alternatives(argument)]
    return [hint]


def matches(value: Any, hint: Any) -> bool:  # noqa: ANN401
    """Whether a plain configuration value fits a type annotation; unknown annotations accept all."""
    members = alternatives(hint)
    if len(members) > 1:
        return any(matches(value, a) for a in members)
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
    literals = [a for a in alternatives(hint) if typing.get_origin(a) is typing.Literal]
    return list(dict.fromkeys(str(value) for literal in literals for value in typing.get_args(literal)))


def in_words(hint: Any) -> str:  # noqa: ANN401
    """What a type annotation allows, for people: ``a whole number or null``, ``mean or last``."""
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    words = _choices(hint)
    for alternative in alternatives(hint):
        kind = typing.get_origin(alternative) or alternative
        if kind in names:
            words.append(names[kind])
        elif _is_path(kind):
            words.append("a path")
        elif inspect.isclass(kind) and issubclass(kind, list | tuple | Mapping | collections.abc.Sequence):
            words.append("a mapping" if issubclass(kind, Mapping) else _list_in_words(typing.get_args(alternative)))
    return " or ".join(words) or getattr(hint, "__name__", str(hint))


def _list_in_words(items: tuple[Any, ...]) -> str:
    return """a list of texts (written "['a', '2024']")""" if str in items else "a list"


def _check_values(config: Mapping[str, Any]) -> None:
    """Refuse values of the right type that cannot work, where no component of ours looks at them."""
    values = leaves(config)
    for key, (smallest, largest) in RANGES.items():
        value = values.get(key)
        if value is not None and not smallest <= value <= largest:
            limit = f"at least {smallest}" if largest == math.inf else f"from {smallest} to {largest}"
            raise UserError(f"{key}={value} must be {limit}")
    epochs, steps = values.get("trainer.max_epochs"), values.get("trainer.max_steps")
    if 0 in (epochs, steps):
        raise UserError(f"trainer.{'max_epochs' if epochs == 0 else 'max_steps'}=0 trains nothing: choose at least 1")
    if epochs is not None and epochs < 0 and (steps is None or steps < 0):
        raise UserError(f"trainer.max_epochs={epochs} never ends: choose at least 1, or set trainer.max_steps")
    path = values.get("tower.path")
    if path is not None and "tokenizer" in config and values.get("tokenizer.path") != path:
        raise UserError(f"tower.path={path} needs that folder's tokenizer: set tokenizer=subword tokenizer.path={path}")
