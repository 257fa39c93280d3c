"""The one interface of all negatives strategies, and the mask that keeps relevant documents out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

__all__ = ["KnownPositives", "Negatives", "Positives", "candidate_mask"]


class Positives(ABC):
    """Which documents are known to be relevant to which queries."""

    @property
    @abstractmethod
    def documents(self) -> int:
        """How many documents there are, rows 0 to ``documents - 1``."""

    @abstractmethod
    def contains(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """Whether each pair is known to be relevant: two equal-shaped int arrays in, bool out."""

    @abstractmethod
    def mark(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """(B, N) bool: which documents of a batch are relevant to which of its queries."""


class KnownPositives(Positives):
    """Which documents are relevant to a query, up to equal texts of queries and of documents.

    Two texts are equal if the tower cannot tell them apart: their token sequences are the same. So a
    second copy of a positive under another id counts as a positive too, and a query that occurs under
    two ids has the positives of both.

    Args:
        query_rows: (P,) int64, queries of the relevant pairs.
        document_rows: (P,) int64, their documents.
        query_group: (Q,) int64, equal for queries of equal text.
        document_group: (N,) int64, equal for documents of equal text.
    """

    def __init__(
        self,
        query_rows: np.ndarray,
        document_rows: np.ndarray,
        query_group: np.ndarray,
        document_group: np.ndarray,
    ) -> None:
        self.query_group = query_group
        self.document_group = document_group
        groups = int(document_group.max(initial=-1)) + 1
        self._keys = np.unique(query_group[query_rows] * groups + document_group[document_rows])
        self._stride = groups
        # CSR over query groups: positives of group g are _groups[_starts[g]:_starts[g + 1]].
        self._groups = self._keys % max(groups, 1)
        bounds = np.arange(int(query_group.max(initial=-1)) + 2)
        self._starts = np.searchsorted(self._keys, bounds * groups)

    @property
    def documents(self) -> int:
        """The corpus' size."""
        return len(self.document_group)

    def contains(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """See `Positives.contains`."""
        if len(self._keys) == 0:
            return np.zeros(np.broadcast(query_rows, document_rows).shape, bool)
        keys = self.query_group[query_rows] * self._stride + self.document_group[document_rows]
        found = np.searchsorted(self._keys, keys)
        return self._keys[np.minimum(found, len(self._keys) - 1)] == keys

    def mark(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """See `Positives.mark`.

        Looks up each query's few positives among the batch's documents instead of testing all pairs.
        """
        marked = np.zeros((len(query_rows), len(document_rows)), bool)
        columns = np.argsort(self.document_group[document_rows], kind="stable")
        sorted_groups = self.document_group[document_rows][columns]
        groups = self.query_group[query_rows]
        counts = self._starts[groups + 1] - self._starts[groups]
        query = np.repeat(np.arange(len(query_rows)), counts)
        within = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        positives = self._groups[np.repeat(self._starts[groups], counts) + within]
        left = np.searchsorted(sorted_groups, positives, side="left")
        right = np.searchsorted(sorted_groups, positives, side="right")
        hits = right - left
        row = np.repeat(query, hits)
        step = np.arange(len(row)) - np.repeat(np.cumsum(hits) - hits, hits)
        marked[row, columns[np.repeat(left, hits) + step]] = True
        return marked


def candidate_mask(
    query_rows: np.ndarray,
    document_rows: np.ndarray,
    positives: Positives,
    use_batch: bool,
    share_extras: bool,
    mask_known: bool = True,
) -> np.ndarray:
    """(B, N) bool: the documents of the batch that each query is pushed away from.

    Args:
        query_rows: (B,) rows of the queries.
        document_rows: (N,) rows of the documents: the B positives, then every query's extras in turn.
        positives: known relevant pairs.
        use_batch: the other queries' positives are candidates.
        share_extras: every query's extras are candidates of all queries, not only of their own.
        mask_known: known relevant pairs are never candidates; otherwise only a query's own positive is none.
    """
    count, total = len(query_rows), len(document_rows)
    mask = np.zeros((count, total), bool)
    mask[:, :count] = use_batch
    if share_extras:
        mask[:, count:] = True
    elif total > count:
        extras = (total - count) // count
        own = np.repeat(np.arange(count), extras)
        mask[own, np.arange(count, total)] = True
    if not mask_known:
        np.fill_diagonal(mask, False)
        return mask
    return np.greater(mask, positives.mark(query_rows, document_rows), out=mask)  # a candidate and not marked


class Negatives(ABC):
    """Proposes extra documents per query; everything else of the batch is settled by the mask.

    Args:
        share_batch: let every query use all documents of the batch: the other positives and all extras
            (None: as the loss prefers, true for cross-entropy, false for triplet).
        mask_known: documents that are known to be relevant to a query, and texts equal to one, are never its
            negatives. False shows what such false negatives do.

    Attributes:
        needs_triplets: the strategy can only be used with data that brings its own negatives.
    """

    needs_triplets: ClassVar[bool] = False

    def __init__(self, share_batch: bool | None = None, mask_known: bool = True) -> None:
        self.share_batch, self.mask_known = share_batch, mask_known

    @abstractmethod
    def extras(
        self,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Rows of extra documents, (B, K) int64; K may be 0.

        Args:
            query_rows: (B,) rows of the batch's queries.
            given: (B, G) rows of the negatives that the data itself brings, or None.
            positives: known relevant pairs, and how many documents there are.
            rng: the only source of chance: seeded by (seed, epoch, batch), so that any batch can be made
                again by itself.
        """
