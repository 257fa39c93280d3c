"""Some of a collection's vectors, or of its queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from two_tower.store import VectorStore

__all__ = ["Queries", "Sample", "drawn", "sample"]

# Vectors (B, D) of queries, and what they are.
Queries = tuple[np.ndarray, str]


@dataclass(frozen=True)
class Sample:
    """Queries to measure an index with.

    Attributes:
        vectors: (B, D) float32.
        which: what they are, in the plural.
        own: (B,) int64, the rows to leave out of the answers, where the queries are documents; else None.
    """

    vectors: np.ndarray
    which: str
    own: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, part: slice) -> Sample:
        return Sample(self.vectors[part], self.which, None if self.own is None else self.own[part])

    def depth(self, k: int) -> int:
        """How many to ask for, to be left with ``k``."""
        return k if self.own is None else k + 1

    def others(self, rows: np.ndarray) -> np.ndarray:
        """(B, k) of the answers (B, `depth`): without the queries' own rows; without the last where that is absent."""
        if self.own is None or not rows.shape[1]:
            return rows
        keep = rows != self.own[:, None]
        keep[keep.all(axis=1), -1] = False
        return rows[keep].reshape(len(rows), -1)


def drawn(store: VectorStore, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, D) float32 vectors from all shards and their rows, ascending; the same in every run."""
    chosen = np.sort(np.random.default_rng(seed).choice(store.manifest.rows, count, replace=False))
    parts, start = [], 0
    for vectors in store.vectors():
        first, last = np.searchsorted(chosen, (start, start + len(vectors)))
        parts.append(np.asarray(vectors[chosen[first:last] - start], np.float32))
        start += len(vectors)
    return np.concatenate(parts), chosen


def sample(store: VectorStore, queries: Queries | None, count: int) -> Sample:
    """At most ``count`` queries: real ones, else documents, each of which then looks for others than itself."""
    if queries is not None and len(queries[0]):
        vectors, which = queries
        return Sample(vectors[np.sort(np.random.default_rng(0).permutation(len(vectors))[:count])], which)
    vectors, rows = drawn(store, min(count, store.manifest.rows), seed=0)
    return Sample(vectors, "passages as queries (each looks for the others)", rows)
