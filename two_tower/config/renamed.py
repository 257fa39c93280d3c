"""Keys that have another name now, or are gone: refused with what to write instead, in older runs too."""

from __future__ import annotations

from collections.abc import Iterable

from two_tower.errors import UserError

# Old key → new key. A key of a group also stands for the same key of a nested component: negatives.NAME.share_batch.
RENAMED: dict[str, str] = {
    "index.lists": "index.nlist",
    "index.probes": "index.nprobe",
    "index.pieces": "index.pq_m",
}

# Old key → why it is gone and what to do.
REMOVED: dict[str, str] = {}


def refuse_renamed(keys: Iterable[str], file: object = None) -> None:
    """Raise a UserError for the first key that has another name now, or is gone.

    Args:
        keys: ``group.key``.
        file: where they stand; None for a command line.
    """
    start = f"{file}: " if file else ""
    for key in keys:
        group, dot, rest = key.partition(".")
        place, _, name = rest.rpartition(".")
        plain = f"{group}{dot}{name}"
        if plain in RENAMED:
            new = RENAMED[plain]
            if place and new.startswith(f"{group}."):
                new = f"{group}.{place}.{new.removeprefix(f'{group}.')}"
            raise UserError(f"{start}{key} is now called {new}: write that instead")
        if plain in REMOVED:
            raise UserError(f"{start}{key} is gone: {REMOVED[plain]}")
