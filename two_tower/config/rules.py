"""Values that have the right type but cannot work, as far as no component looks at them itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from two_tower.errors import UserError

__all__ = ["check_rules"]

# Key → the least and the largest value that works. A size that follows another by default comes after it.
RANGES: dict[str, tuple[float, float]] = {
    "tower.dim": (1, math.inf),
    "embedding.dim": (1, math.inf),
    "tower.hidden": (1, math.inf),
    "tower.layers": (1, math.inf),
    "tower.dropout": (0, 1),
    "data.batch_size": (1, math.inf),
    "data.max_examples": (0, math.inf),
    "data.pseudo_queries": (0, math.inf),
    "data.num_workers": (0, math.inf),
    "validation.depth": (1, math.inf),
    "shard_rows": (1, math.inf),
    "seed": (0, 2**32 - 1),  # what NumPy takes
}


def check_rules(config: Mapping[str, Any]) -> None:
    """Compare a configuration whose keys and types are right with the rules; absent keys break none.

    Raises:
        UserError: the first rule that is broken, with its remedy.
    """
    for key, (least, most) in RANGES.items():
        value = _value(config, key)
        if value is not None and not least <= value <= most:
            limit = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise UserError(f"{key}={value} must be {limit}")
    _training_ends(config)
    _tower_fits(config)


def _value(config: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401
    group, _, name = key.rpartition(".")
    return ((config.get(group) or {}) if group else config).get(name)


def _training_ends(config: Mapping[str, Any]) -> None:
    epochs, steps = _value(config, "trainer.max_epochs"), _value(config, "trainer.max_steps")
    for key, value in (("max_epochs", epochs), ("max_steps", steps)):
        if value == 0:
            raise UserError(f"trainer.{key}=0 trains nothing: choose at least 1")
    if epochs is not None and epochs < 0 and (steps is None or steps < 0):
        raise UserError(f"trainer.max_epochs={epochs} never ends: choose at least 1, or set trainer.max_steps")


def _tower_fits(config: Mapping[str, Any]) -> None:
    dropout, layers = _value(config, "tower.dropout"), _value(config, "tower.layers")
    if dropout and layers == 1:
        raise UserError(f"tower.dropout={dropout} works between layers, and tower.layers is 1: set tower.dropout=0")
    path = _value(config, "tower.path")
    if path is not None and "tokenizer" in config and _value(config, "tokenizer.path") != path:
        raise UserError(f"tower.path={path} needs that folder's tokenizer: set tokenizer=subword tokenizer.path={path}")
