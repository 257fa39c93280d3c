"""From a component's keys to the object: the project's one use of ``_target_``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from two_tower.errors import UserError

__all__ = ["build", "target_of"]


def target_of(spec: Mapping[str, Any], key: str = "") -> Callable[..., Any]:
    """The class or function that a component's ``_target_`` names.

    Raises:
        UserError: it cannot be imported.
    """
    name = str(spec.get("_target_", ""))
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key or 'component'}._target_={name} cannot be imported: {error}.") from error


def build(spec: Mapping[str, Any], offer: Mapping[str, Any] | None = None, **extra: Any) -> Any:  # noqa: ANN401
    """Call a component's ``_target_`` with its keys; nested components are built first.

    With ``_partial_: true`` a partial function is returned instead.

    Args:
        spec: the component's configuration.
        offer: more arguments, each passed only if the target has a parameter of that name.
        extra: more arguments, passed in any case.

    Raises:
        UserError: the target cannot be imported or refuses its arguments.
    """
    target = target_of(spec)
    keys = {k: _built(v) for k, v in spec.items() if not k.startswith("_")}
    if offer:
        accepted = inspect.signature(target).parameters
        keys.update({k: v for k, v in offer.items() if k in accepted})
    keys.update(extra)
    if spec.get("_partial_"):
        return partial(target, **keys)
    try:
        return target(**keys)
    except Exception as error:
        if isinstance(error, UserError) or target.__module__.startswith("two_tower."):
            raise
        # A library's own check of its arguments; ours raise UserError, so anything else of ours is a bug.
        raise UserError(f"{spec['_target_']} refuses its settings: {str(error).splitlines()[0]}") from error


def _built(value: Any) -> Any:  # noqa: ANN401
    return build(value) if isinstance(value, Mapping) and "_target_" in value else value
