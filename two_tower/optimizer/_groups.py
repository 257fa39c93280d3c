"""Which parameters step together: word tables apart from the rest, each module apart from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

__all__ = ["learning_rate", "parameter_groups"]


def parameter_groups(modules: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer of this package, or any of torch that ignores extra keys.

    A parameter is a word table if its attribute ``is_word_table`` is true. Frozen parameters are in a group
    too (they may be unfrozen later); an optimizer skips them as long as they have no gradient.

    Args:
        modules: name → module, e.g. ``{"query": tower, "document": tower}``.

    Returns:
        Groups ``{"name": "query/words", "params": [...], "word_table": True}`` (or ``"query/dense"``, False)
        without empty ones. Each parameter is in exactly one group: one that several modules hold is in
        ``"shared/words"`` or ``"shared/dense"``.
    """
    owners: dict[nn.Parameter, list[str]] = {}
    for name, module in modules.items():
        for parameter in module.parameters():
            owners.setdefault(parameter, []).append(name)
    groups: dict[str, dict[str, Any]] = {}
    for parameter, names in owners.items():
        word_table = bool(getattr(parameter, "is_word_table", False))
        owner = names[0] if len(names) == 1 else "shared"
        name = f"{owner}/{'words' if word_table else 'dense'}"
        group = groups.setdefault(name, {"name": name, "params": [], "word_table": word_table})
        group["params"].append(parameter)
    return list(groups.values())


def learning_rate(groups: Sequence[Mapping[str, Any]]) -> float:
    """The learning rate at present, ``optimizer.lr`` as the schedule has changed it, without the scale of word tables.

    Args:
        groups: of an optimizer, at least one.
    """
    group = min(groups, key=lambda each: bool(each.get("word_table")))  # the first one that is no word table
    scale = group.get("embedding_lr_scale", 1.0) if group.get("word_table") else 1.0
    return float(group["lr"] / (scale or 1.0))
