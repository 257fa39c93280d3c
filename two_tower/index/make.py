"""From vectors to an index that says what it is worth."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from two_tower.config import build, read, to_yaml
from two_tower.errors import UserError
from two_tower.files import write_json, write_text
from two_tower.index.base import VectorIndex
from two_tower.index.measure import K, Report, choose_effort, exact, measure
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

__all__ = ["Queries", "is_made", "load_index", "make_index"]

log = logging.getLogger(__name__)

SAMPLE = 1000

# Vectors (B, D) of queries, and what they are.
Queries = tuple[np.ndarray, str]
# Keys of the group that are not the index's own.
_OURS = ("target_recall", "sample")


def _made(config: Mapping[str, Any]) -> VectorIndex:
    made: VectorIndex = build({key: value for key, value in config.items() if key not in _OURS})
    return made


def load_index(folder: Path, similarity: Similarity) -> VectorIndex:
    """The finished index in a folder.

    Raises:
        UserError: it is missing or damaged.
    """
    kept = read(folder / "index.yaml")
    index = _made(kept["index"])
    index.load(folder, similarity)
    if kept["effort"] is not None:
        index.set_effort(kept["effort"])
    return index


def is_made(folder: Path, config: Mapping[str, Any], similarity: Similarity) -> bool:
    """Whether the folder holds a whole index of this configuration."""
    try:
        load_index(folder, similarity)
        return bool(read(folder / "index.yaml")["index"] == dict(config))
    except (UserError, FileNotFoundError, KeyError, TypeError):
        return False


def make_index(
    folder: Path, config: Mapping[str, Any], store: VectorStore, similarity: Similarity, queries: Queries | None
) -> Report:
    """Build, measure and save an index; ``index.yaml`` appears last, so its presence means that it is whole.

    Args:
        folder: of the store.
        config: the group ``index``: the index's own keys, and ``target_recall``, the recall@10 for which the search's
            effort is chosen, or None; ``sample``, queries to measure with.
        store: complete.
        similarity: what vectors are compared by.
        queries: vectors of real queries; without any, documents are searched for.

    Raises:
        UserError: the index refuses its settings.
    """
    (folder / "index.yaml").unlink(missing_ok=True)
    index, target = _made(config), config.get("target_recall")
    start = time.perf_counter()
    index.build(store, similarity, folder)
    index.save(folder)
    seconds = time.perf_counter() - start
    sample, which = _sample(store, queries, config.get("sample") or SAMPLE)
    wanted = exact(store, similarity, sample)
    effort, reached, rest = None, None, slice(None)
    if target is not None and index.grid:
        # The half that the effort is chosen on would flatter it.
        half = len(sample) // 2
        effort = choose_effort(index, sample[:half], wanted[:half], target)
        reached, rest = effort is not None, slice(half, None)
        effort = effort or index.grid[-1]
    share, p50, p99 = measure(index, sample[rest], wanted[rest])
    shown = f"index.{index.name}={getattr(index, index.name)}" if index.name else ""
    report = Report(
        store.manifest.rows,
        index.size(folder),
        seconds,
        share,
        p50,
        p99,
        f"{len(sample[rest]):,} {which}",
        shown,
        reached,
    )
    if reached is False:
        log.warning("index.target_recall=%g is not reached: recall@%d is %.3f at most, %s.", target, K, share, shown)
    write_json(folder / "report.json", report.to_dict())
    write_text(folder / "index.yaml", to_yaml({"index": dict(config), "effort": effort}))
    return report


def _sample(store: VectorStore, queries: Queries | None, count: int) -> Queries:
    """Queries to measure with: real ones, else documents, which find themselves and so flatter a little."""
    rng = np.random.default_rng(0)
    if queries is not None and len(queries[0]):
        vectors, which = queries
        return vectors[np.sort(rng.permutation(len(vectors))[:count])], which
    rows = np.sort(rng.permutation(store.manifest.rows)[:count])
    parts, start = [], 0
    for vectors in store.vectors():
        first, last = np.searchsorted(rows, (start, start + len(vectors)))
        parts.append(np.asarray(vectors[rows[first:last] - start], np.float32))
        start += len(vectors)
    return np.concatenate(parts), "documents as queries (each finds itself)"
