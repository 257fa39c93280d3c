"""Keys that have another name now, or are gone: refused with what to write instead, in older runs too."""

from __future__ import annotations

from collections.abc import Iterable

from two_tower.errors import UserError

# Old key → new key. A key of a group also stands for that key of its nested components: negatives.NAME.share_batch.
RENAMED = {
    "data.passage_column": "data.positive_column",
    "data.split_seed": "data.dev_seed",
    "embedding.normalise": "embedding.normalize",
    "index.lists": "index.nlist",
    "index.pieces": "index.pq_m",
    "index.probes": "index.nprobe",
    "loss.contrastive": "loss.weights.contrastive",
    "loss.cosine": "loss.weights.cosine",
    "loss.kl": "loss.weights.kl",
    "memory": "cross_batch_memory",
    "memory_start": "cross_batch_start",
    "negatives.mask_known": "negatives.mask_known_positives",
    "negatives.share_batch": "negatives.in_batch_negatives",
}

_NO_HELP = "it did not help (docs/experiments.md); leave it out"
# Old key → why it is gone and what to do.
REMOVED = {
    "data.pseudo_kinds": _NO_HELP,
    "data.pseudo_queries": _NO_HELP,
    "data.repair_encoding": "run ftfy on the file before (docs/data.md); leave it out",
    "tower.bigrams": _NO_HELP,
    "tower.repeats": _NO_HELP,
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
