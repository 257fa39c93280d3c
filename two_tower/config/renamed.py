"""Keys that have another name now, or are gone: refused with what to write instead, in older runs too."""

from __future__ import annotations

from collections.abc import Iterable

from two_tower.errors import UserError

# Old key → new key. A key of a group also stands for that key of its nested components: negatives.NAME.share_batch.
RENAMED: dict[str, str] = {
    "negatives.share_batch": "negatives.in_batch_negatives",
    "negatives.mask_known": "negatives.mask_known_positives",
    "memory": "cross_batch_memory",
    "memory_start": "cross_batch_start",
    "loss.cosine": "loss.weights.cosine",
    "loss.kl": "loss.weights.kl",
    "loss.contrastive": "loss.weights.contrastive",
}

# Old key → why it is gone and what to do.
REMOVED: dict[str, str] = {
    "data.pseudo_queries": "it did not help (docs/experiments.md): leave it out",
    "data.pseudo_kinds": "it did not help (docs/experiments.md): leave it out",
}


def refuse_renamed(keys: Iterable[str], file: object = None) -> None:
    """Raise a UserError for the first key that has another name now, or is gone.

    Args:
        keys: ``group.key`` or ``group.component.key``.
        file: where they stand; None for a command line.
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
        new = (
            RENAMED[plain] if not place or not RENAMED[plain].startswith(f"{group}.") else f"{group}.{place}.{own_name}"
        )
        raise UserError(f"{start}{key} is now called {new}: write that instead")
