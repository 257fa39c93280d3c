"""From a component's keys to the object: the project's one use of ``_target_``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from two_tower.errors import UserError


def is_component(value: Any) -> bool:  # noqa: ANN401
    """Whether a value of a configuration is built, and so has keys of its own."""
    return isinstance(value, Mapping) and "_target_" in value


def target_of(spec: Mapping[str, Any], place: str = "") -> Callable[..., Any]:
    """The class or function that a component's ``_target_`` names; a UserError if it cannot be imported."""
    name = str(spec.get("_target_", ""))
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
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
    ours = inner.__module__.startswith("two_tower.")
    try:
        return target(*args, **keys)
    except UserError:
        raise
    except Exception as error:
        if not ours:
            name = getattr(target, "__name__", str(target))
            raise UserError(f"{place} ({name}) refuses its settings: {str(error).splitlines()[0]}") from error
        if not isinstance(error, ValueError):  # a bug
            raise
        raise UserError(f"{place}.{error}" if place else str(error)) from error
