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
from two_tower.store import VectorStore

FILE = "copies.npz"


@dataclass(frozen=True, eq=False)
class Copies:
    """The rows of each of M distinct vectors, in the order in which they are found: the largest id first."""

    rows: np.ndarray  # (N,) int64, those of the first distinct vector, then those of the second …
    starts: np.ndarray  # (M + 1,) int64, where those of each begin

    @classmethod
    def find(cls, store: VectorStore) -> Copies | None:
        """The copies in a complete store, None if there are none.

        Different vectors share a hash of 64 bits in one of 500,000 collections of 8.8 million.
        """
        hashes = np.concatenate([_hashes(vectors) for vectors in store.vectors()])
        _, first, vector, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
        if len(first) == len(hashes):
            return None
        places = np.empty(len(first), np.int64)  # vectors are numbered by their first rows
        places[np.argsort(first)] = np.arange(len(first))
        rows = np.lexsort((-id_order(store.ids()), places[vector]))
        return cls(rows, np.concatenate([[0], np.cumsum(counts[np.argsort(first)])]))

    @property
    def largest(self) -> np.ndarray:
        """The rows of the vector that most passages share."""
        largest = int(np.diff(self.starts).argmax())
        return self.rows[self.starts[largest] : self.starts[largest + 1]]

    def expand(self, scores: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows (B, k) of passages, given those (B, n) of distinct vectors; -inf and -1 after the last."""
        k = min(k, len(self.rows))
        out, rows = np.full((len(scores), k), -np.inf, np.float32), np.full((len(scores), k), -1, np.int64)
        for i, (its, found) in enumerate(zip(scores, vectors, strict=True)):
            found = found[found >= 0]
            which, places = expand_ranges(self.starts[found], self.starts[found + 1])
            which, places = which[:k], places[:k]
            out[i, : len(which)], rows[i, : len(which)] = its[which], self.rows[places]
        return out, rows

    def save(self, folder: Path) -> None:
        with atomic_path(folder / FILE) as temporary, temporary.open("wb") as file:
            np.savez(file, rows=self.rows, starts=self.starts)

    @classmethod
    def load(cls, folder: Path) -> Copies | None:
        """What `save` wrote, None if there is nothing."""
        if not (folder / FILE).exists():
            return None
        with np.load(folder / FILE) as saved:
            return cls(saved["rows"], saved["starts"])


class DistinctVectors(VectorStore):
    """A store in which each vector comes once; rows are numbers of distinct vectors."""

    def __init__(self, store: VectorStore, copies: Copies) -> None:
        super().__init__(store.path, store.manifest)
        self._first = np.sort(np.minimum.reduceat(copies.rows, copies.starts[:-1]))

    @property
    def rows(self) -> int:
        return len(self._first)

    def vectors(self) -> Iterator[np.ndarray]:
        start = 0
        for vectors in super().vectors():
            first, last = np.searchsorted(self._first, (start, start + len(vectors)))
            yield vectors[self._first[first:last] - start]
            start += len(vectors)


def _hashes(vectors: np.ndarray) -> np.ndarray:
    plain = np.ascontiguousarray(vectors) + np.float32(0)  # -0 is 0
    return np.fromiter((xxhash.xxh3_64_intdigest(row) for row in plain), np.uint64, len(plain))
