"""Which document stands where among equals, and which ranks are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from two_tower.ranking.kernels import NONE, key_scores

__all__ = ["Pairs", "Places"]


class Places:
    """Places of the documents among equal scores, and the way back from keys to rows."""

    def __init__(self, order: np.ndarray | Tensor, documents: int) -> None:
        values = order.cpu().numpy() if isinstance(order, Tensor) else np.asarray(order)
        if values.shape != (documents,):
            raise ValueError(f"order has shape {values.shape}, but there are {documents} documents")
        # Any distinct integers will do, for example those of a subset of the corpus: only places count.
        self.rows = np.argsort(values)
        self.of = np.empty(documents, np.int32)  # (N,)
        self.of[self.rows] = np.arange(documents, dtype=np.int32)

    def decode(self, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(Q, k) int64 document rows and (Q, k) float32 scores, best first, of unsorted (Q, ≤ k) keys."""
        rows = np.full((len(keys), k), -1, np.int64)
        scores = np.full((len(keys), k), -np.inf, np.float32)
        keys = np.sort(keys, axis=1)[:, ::-1]
        found = np.nonzero(keys > NONE)
        rows[found] = self.rows[keys[found] & 0xFFFFFFFF]
        scores[found] = key_scores(keys[found])
        return rows, scores


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs sorted by query.

    Attributes:
        queries: (P,) int64, ascending.
        documents: (P,) int64.
        back: (P,) int64, where each pair, in the order given, stands among the sorted ones.
    """

    queries: np.ndarray
    documents: np.ndarray
    back: np.ndarray

    @classmethod
    def sorted(cls, pairs: tuple[np.ndarray, np.ndarray] | None, queries: int, documents: int) -> Pairs:
        """Check and sort pairs of rows.

        Raises:
            ValueError: a pair lies outside the queries and documents.
        """
        query_rows, document_rows = pairs if pairs is not None else ([], [])
        q, d = np.asarray(query_rows, np.int64), np.asarray(document_rows, np.int64)
        if q.shape != d.shape or q.ndim != 1:
            raise ValueError(f"pairs need as many query rows as document rows, not {q.shape} and {d.shape}")
        if len(q) and (q.min() < 0 or q.max() >= queries or d.min() < -1 or d.max() >= documents):
            raise ValueError(f"a pair lies outside the {queries} queries and {documents} documents")
        ascending = np.argsort(q, kind="stable")
        back = np.empty(len(q), np.int64)
        back[ascending] = np.arange(len(q))
        return cls(q[ascending], d[ascending], back)

    def of(self, block: slice) -> slice:
        """The pairs of a block of queries."""
        first, last = np.searchsorted(self.queries, [block.start, block.stop])
        return slice(int(first), int(last))
