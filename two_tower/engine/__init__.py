"""Who does the same work for each of many items: this process, or workers on several machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from two_tower.config import build

if TYPE_CHECKING:
    from two_tower.engine.base import Engine


def make_engine(config: Mapping[str, Any]) -> Engine:
    """The engine of a configuration; that of this process where an older run has none."""
    return build("engine", config.get("engine", {"_target_": "two_tower.engine.local.LocalEngine"}))
