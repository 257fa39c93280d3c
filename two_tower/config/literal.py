"""What is typed on a command line, for Hydra: its grammar reads ``2024_06`` as 202406, and no ``ü`` or ``(`` at all.

A value whose key holds a text or a path means itself, whatever it looks like. Exceptions: quotes around the whole value
are left out, ``null`` is none where a key may be empty, ``${key}`` is another key's value, and in a sweep commas part
values, unless all of it is a path that exists.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import NoneType
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from two_tower.config.build import (
    Types,
    alternatives,
    argument_types,
    is_component,
    is_text,
    items_of,
    matches,
    target_of,
    written,
)
from two_tower.config.saved import groups
from two_tower.errors import UserError

# Hydra reads these as they are.
_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)(?:[a-z_/]|\.+/)[\w./-]*", re.ASCII | re.IGNORECASE)
# A value of a sweep, up to the next comma that is not within its quotes or an interpolation.
_PIECE = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:\$\{[^}]*\}|[^,])*?)\s*(?:,|$)""")
_FUNCTION = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\(.*\)")  # of Hydra's sweeps
UNREADABLE = object()


Compose = Callable[[Sequence[str]], DictConfig]
MoreTypes = Callable[[], Mapping[str, Types]]


def as_typed(overrides: Sequence[str], compose: Compose, more_types: MoreTypes, sweep: bool = False) -> list[str]:
    """The overrides in Hydra's grammar, with quotes where it would read something else.

    ``compose`` makes a configuration of overrides, ``more_types`` gives what `two_tower.config.build.check` takes as
    ``extra``; they are called only for a value whose key decides.
    """
    keys = _Keys(overrides, compose, more_types)
    return [_as_typed(each, keys, sweep) for each in overrides]


def quoted(value: str) -> str:
    """A text as Hydra's grammar reads it back unchanged."""
    inner = re.sub(r"(\\*)'", r"\1\1\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", inner) + "'"


def _as_typed(override: str, keys: _Keys, sweep: bool) -> str:
    name, equals, value = override.partition("=")
    if not equals or name.startswith("~") or _PLAIN.fullmatch(value):
        return override
    read = read_value(value)
    if isinstance(read, QuotedString) or (isinstance(read, str | int | float) and written(read) == value):
        return override
    key, hint = name.lstrip("+"), keys.hint(name.lstrip("+"))
    no_items = value[0] not in "[{" or not (matches([], hint) or matches({}, hint))
    is_none = value == "null" and NoneType in alternatives(hint)
    if is_none or not (is_text(hint) or (read is UNREADABLE and no_items)):
        return override
    if key.startswith("hydra."):
        return f"{name}={quoted(os.path.expanduser(value))}"
    if not sweep or os.path.exists(os.path.expanduser(value)):
        return f"{name}={quoted(value)}"
    return override if _FUNCTION.fullmatch(value) else f"{name}={','.join(map(_piece, _PIECE.findall(value)[:-1]))}"


def _piece(value: str) -> str:
    """One value of a sweep over texts."""
    own_quotes = isinstance(read_value(value), QuotedString)
    return value if own_quotes or value == "null" or _PLAIN.fullmatch(value) else quoted(value)


def read_value(value: str) -> Any:  # noqa: ANN401
    """A value as Hydra's grammar reads it; `UNREADABLE` where it cannot."""
    try:
        (override,) = _parser().parse_overrides([f"key={value}"])
    except HydraException:
        return UNREADABLE
    return override._value


@functools.cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


class _Keys:
    """What the keys of a configuration hold; composed for the first question."""

    def __init__(self, overrides: Sequence[str], compose: Compose, more_types: MoreTypes) -> None:
        self._overrides, self._compose, self._more_types = overrides, compose, more_types

    @cached_property
    def _config(self) -> Any:  # noqa: ANN401
        try:
            return OmegaConf.to_container(self._compose([*filter(None, map(_choice, self._overrides))]))
        except Exception:  # the mistake shows, and is explained, once all is composed
            return {}

    def hint(self, key: str) -> Any:  # noqa: ANN401
        """The type annotation of a key, else `str` if its value is a text; None where neither is known."""
        node, hint, place = self._config, None, ""
        for name in key.split("."):
            hint = self._argument(node, place, name) or items_of(hint)
            node, place = node.get(name) if isinstance(node, Mapping) else None, f"{place}.{name}".lstrip(".")
        return str if hint is None and isinstance(node, str) else hint

    def _argument(self, node: Any, place: str, name: str) -> Any:  # noqa: ANN401
        try:
            own = argument_types(target_of(node, place)).get(name) if is_component(node) else None
        except UserError:
            return None
        return own or (self._more_types().get(place, {}).get(name) if name not in groups() else None)


def _choice(override: str) -> str | None:
    """The override if it decides which keys there are; of several choices with the first."""
    name, _, value = override.partition("=")
    if name.endswith("._target_"):
        return override
    first = value.partition(",")[0]
    return f"{name}={first}" if name in groups() and (_PLAIN.fullmatch(first) or first == "null") else None
