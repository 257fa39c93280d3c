"""Equal vectors: an index holds each of them once, and the rows that share it are listed beside.

As they are, a crowd of equal vectors fills all neighbour lists of a graph, which then loses passages: with 2,000 copies
among 5,000 passages HNSW found .800 of the ten nearest, without them 1.000.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from two_tower.files import atomic_path
from two_tower.ragged import expand_ranges
from two_tower.ranking import id_order
from two_tower.store import VectorStore, split_rows

COPIES = "copies.npz"


@dataclass(frozen=True, eq=False)
class Copies:
    """The rows of each of M distinct vectors, in the order in which they are found: the largest id first."""

    rows: np.ndarray  # (N,) int64, those of the first distinct vector, then those of the second …
    starts: np.ndarray  # (M + 1,) int64, where those of each begin

    @classmethod
    def find(cls, store: VectorStore) -> Copies | None:
        """The copies in a complete store, None if there are none."""
        hashes = hash_vectors(store)
        _, first, vector, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
        if len(first) == len(hashes):
            return None
        rows = np.lexsort((-id_order(store.ids()), first[vector]))  # vectors are in the order of their first rows
        return cls(rows, np.concatenate([[0], np.cumsum(counts[np.argsort(first)])]))

    def expand(self, scores: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows (B, k) of passages, given those (B, n) of distinct vectors; -inf and -1 after the last."""
        k = min(k, len(self.rows))
        out, rows = np.full((len(scores), k), -np.inf, np.float32), np.full((len(scores), k), -1, np.int64)
        for i, (its, found) in enumerate(zip(scores, vectors, strict=True)):
            found = found[found >= 0]
            which, places = (each[:k] for each in expand_ranges(self.starts[found], self.starts[found + 1]))
            out[i, : len(which)], rows[i, : len(which)] = its[which], self.rows[places]
        return out, rows

    def save(self, folder: Path) -> None:
        with atomic_path(folder / COPIES) as temporary, temporary.open("wb") as file:
            np.savez(file, rows=self.rows, starts=self.starts)

    @classmethod
    def load(cls, folder: Path) -> Copies | None:
        """What `save` wrote, None if there is nothing."""
        if not (folder / COPIES).exists():
            return None
        with np.load(folder / COPIES) as saved:
            return cls(saved["rows"], saved["starts"])


def hash_vectors(store: VectorStore) -> np.ndarray:
    """(N,) uint64, of each vector of a complete store.

    Different vectors share a hash of 64 bits in one of 500,000 collections of 8.8 million.
    """
    plain = (np.ascontiguousarray(vectors) + np.float32(0) for vectors in store.vectors())  # -0 is 0
    return np.fromiter((xxhash.xxh3_64_intdigest(row) for rows in plain for row in rows), np.uint64, store.rows)


class DistinctVectors(VectorStore):
    """A store in which each vector comes once; rows are numbers of distinct vectors."""

    def __init__(self, store: VectorStore, copies: Copies) -> None:
        super().__init__(store.path, store.manifest)
        self._first = np.minimum.reduceat(copies.rows, copies.starts[:-1])

    @property
    def rows(self) -> int:
        return len(self._first)

    def vectors(self) -> Iterator[np.ndarray]:
        return (vectors[own] for vectors, own in split_rows(super().vectors(), self._first))
