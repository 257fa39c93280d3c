"""The one interface of all negatives strategies, and the mask that keeps relevant documents out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from two_tower.errors import UserError

__all__ = ["Collection", "DrawnNegatives", "KnownPositives", "Negatives", "Positives", "candidate_mask"]


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


@dataclass(frozen=True, eq=False)
class Collection:
    """What a strategy may look at before training: the judged training queries and the corpus, in rows of both.

    Attributes:
        queries: (Q,) texts of the training queries.
        texts: reads the (N,) texts of the corpus.
        order: (N,) decides between equal scores, see `two_tower.ranking.rank`.
        pairs: (P,) int64 query rows and (P,) int64 document rows of the relevant pairs.
        positives: what is known to be relevant to which query.
        split_camel_case: how BM25 splits words, see `two_tower.bm25.words`.
        fingerprint: changes with all of the above.
        folder: where a run keeps what it mines itself; need not exist yet.
    """

    queries: pa.ChunkedArray
    texts: Callable[[], pa.ChunkedArray]
    order: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray]
    positives: Positives
    split_camel_case: bool
    fingerprint: str
    folder: Path


class Negatives(ABC):
    """Proposes extra documents per query; everything else of the batch is settled by the mask.

    A batch follows from (seed, epoch, k) alone, in whatever process it is made. So what a strategy proposes may
    depend on what `prepare` and `start_epoch` found, on the epoch and on ``rng``, but not on earlier batches.

    Args:
        share_batch: let every query use all documents of the batch: the other positives and all extras
            (None: as the loss prefers, true for cross-entropy, false for triplet).
        mask_known: documents that are known to be relevant to a query, and texts equal to one, are never its
            negatives. False shows what such false negatives do.

    Attributes:
        needs_triplets: the strategy can only be used with data that brings its own negatives.
        needs_collection: it looks at the collection, so it needs a training split with judged queries.
        by_chance: the extras of a query depend on ``rng``, so that several processes have to draw those of the
            whole batch to draw the same as one.
    """

    needs_triplets: bool = False
    needs_collection: bool = False
    by_chance: bool = False

    def __init__(self, share_batch: bool | None = None, mask_known: bool = True) -> None:
        self.share_batch, self.mask_known = share_batch, mask_known

    def prepare(self, collection: Collection) -> None:  # noqa: B027
        """Look at the collection, once, before the first batch; not called for triplets that come as texts."""

    def start_epoch(self, epoch: int) -> None:  # noqa: B027
        """Called before batches of another epoch (from 0) are made, in every process that makes some.

        A process that prepares batches has a copy of the strategy from the start. So what changes over epochs
        follows from the epoch alone, or is found in a file.
        """

    def parts(self, epoch: int) -> list[Negatives]:
        """The strategies whose documents may occur in an epoch (from 0): this one, or those that it is made of."""
        return [self]

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


class DrawnNegatives(Negatives):
    """A strategy that can supply any number of documents for each query.

    Args:
        count: extra documents per query.
        share_batch: see `Negatives`.
        mask_known: see `Negatives`.

    Raises:
        UserError: a count below 1.
    """

    by_chance: bool = True

    def __init__(self, count: int = 1, share_batch: bool | None = None, mask_known: bool = True) -> None:
        super().__init__(share_batch, mask_known)
        if count < 1:
            raise UserError(f"negatives.count={count} must be at least 1.")
        self.count = count

    @abstractmethod
    def draw(
        self,
        count: int,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(B, count) int64 rows of documents; other arguments as for `extras`."""

    def extras(
        self,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(B, count)."""
        return self.draw(self.count, query_rows, given, positives, rng)
