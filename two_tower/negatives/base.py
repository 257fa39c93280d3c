"""The interface of all negatives strategies, and the mask that keeps relevant documents out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from two_tower.errors import at_least
from two_tower.ragged import expand_ranges
from two_tower.tokenizer.base import Rule


class Positives(ABC):
    """Which documents are known to be relevant to which queries."""

    @property
    @abstractmethod
    def documents(self) -> int:
        """Number of documents; their rows are 0 to ``documents - 1``."""

    @abstractmethod
    def contains(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """Whether each pair is known to be relevant: two equal-shaped int arrays in, bool out."""

    @abstractmethod
    def mark(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """(B, N) bool: which documents of a batch are relevant to which of its queries."""


class KnownPositives(Positives):
    """Which documents are relevant to a query, up to equal texts.

    Two texts are equal if their tokens are, because then a tower cannot tell them apart. So a copy of a positive under
    another id is a positive too, and a query that occurs under two ids has the positives of both.

    The rows are those of the relevant pairs, (P,) int64; the groups, (Q,) and (N,) int64, are equal for equal texts.
    """

    def __init__(
        self, query_rows: np.ndarray, document_rows: np.ndarray, query_group: np.ndarray, document_group: np.ndarray
    ) -> None:
        self.query_group, self.document_group = query_group, document_group
        self._stride = groups = int(document_group.max(initial=-1)) + 1
        self._keys = np.unique(query_group[query_rows] * groups + document_group[document_rows])
        # CSR over query groups: the positives of group g are _groups[_starts[g]:_starts[g + 1]].
        self._groups = self._keys % max(groups, 1)
        bounds = np.arange(int(query_group.max(initial=-1)) + 2)
        self._starts = np.searchsorted(self._keys, bounds * groups)

    @property
    def documents(self) -> int:
        return len(self.document_group)

    def contains(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        if len(self._keys) == 0:
            return np.zeros(np.broadcast(query_rows, document_rows).shape, bool)
        keys = self.query_group[query_rows] * self._stride + self.document_group[document_rows]
        places = np.searchsorted(self._keys, keys)
        return self._keys[np.minimum(places, len(self._keys) - 1)] == keys

    def mark(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        # Look up each query's few positives among the batch's documents instead of testing all pairs.
        marked = np.zeros((len(query_rows), len(document_rows)), bool)
        columns = np.argsort(self.document_group[document_rows], kind="stable")
        sorted_groups = self.document_group[document_rows][columns]
        groups = self.query_group[query_rows]
        query, places = expand_ranges(self._starts[groups], self._starts[groups + 1])
        positives = self._groups[places]
        left = np.searchsorted(sorted_groups, positives, side="left")
        right = np.searchsorted(sorted_groups, positives, side="right")
        pair, hits = expand_ranges(left, right)
        marked[query[pair], columns[hits]] = True
        return marked


@dataclass(frozen=True, eq=False)
class NegativeMask:
    """The one place that decides which documents are negatives of which query."""

    positives: Positives  # known relevant pairs
    whole_batch: bool  # every query is pushed away from the documents of all queries, not only from its own extra ones
    known_positives: bool = True  # mask all known positives, not only the query's own one
    # Whether every example is a query with a document relevant to it. If not, a query and an unrelated document share
    # an example only to learn from a teacher: the query has no negatives, and the document is a negative of no query.
    judged: bool = True

    def in_batch(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """(B, N) bool: which of a batch's N documents, the positives first, are negatives of each of B queries."""
        count, total = len(query_rows), len(document_rows)
        mask = np.full((count, total), self.whole_batch)
        if not self.whole_batch and total > count:
            own = np.repeat(np.arange(count), (total - count) // count)
            mask[own, np.arange(count, total)] = True
        if self.known_positives:
            np.greater(mask, self.positives.mark(query_rows, document_rows), out=mask)  # and not marked
        else:
            np.fill_diagonal(mask, False)
        if not self.judged:
            related = self.positives.contains(query_rows, document_rows[:count])
            mask &= related[:, None]
            mask[:, :count] &= related
        return mask

    def outside(self, query_rows: np.ndarray, positive_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """(B, M) bool: which of M documents from outside the batch are negatives of each query."""
        if self.known_positives:
            mask = ~self.positives.mark(query_rows, document_rows)
        else:
            mask = positive_rows[:, None] != document_rows[None, :]
        if not self.judged:
            mask &= self.positives.contains(query_rows, positive_rows)[:, None]
        return mask


@dataclass(frozen=True, eq=False)
class Collection:
    """What a strategy may look at before training: the judged training queries and the corpus."""

    queries: pa.ChunkedArray  # (Q,) texts of the training queries
    texts: Callable[[], pa.ChunkedArray]  # reads the (N,) texts of the corpus
    order: np.ndarray  # (N,) decides between equal scores, see `two_tower.ranking.rank`
    pairs: tuple[np.ndarray, np.ndarray]  # (P,) int64 query rows and (P,) int64 document rows of the relevant pairs
    positives: Positives  # the same pairs, for look-ups
    rule: Rule | None  # what a word is for BM25
    fingerprint: str  # changes with all of the above
    folder: Path  # where a run keeps what it mines itself; need not exist yet


@dataclass(frozen=True, eq=False)
class DrawContext:
    """What extra negatives of a batch are drawn from."""

    query_rows: np.ndarray  # (B,) rows of the batch's queries
    given: np.ndarray | None  # (B, G) rows of the negatives that the data itself brings, or None
    positives: Positives  # known relevant pairs, and the number of documents
    rng: np.random.Generator  # seeded with (seed, epoch, batch), so that any batch can be made again by itself


class Negatives(ABC):
    """Chooses extra negatives for each query. Which documents count as negatives is the mask's job.

    A batch follows from (seed, epoch, k) alone, whichever process makes it. So the choice may depend on what `prepare`
    and `start_epoch` read, on the epoch and on the context's ``rng``, but not on earlier batches.
    """

    needs_triplets: bool = False  # only for data that brings its own negatives
    needs_collection: bool = False  # `prepare` looks at it, so it needs a training split with judged queries
    # The extra negatives depend on ``rng``: each of several processes draws the whole batch's, as one process would.
    stochastic: bool = False

    def __init__(self, in_batch_negatives: bool | None = None, mask_known_positives: bool = True) -> None:
        self.in_batch_negatives, self.mask_known_positives = in_batch_negatives, mask_known_positives

    def prepare(self, collection: Collection) -> None:  # noqa: B027
        """Called once before the first batch, but not for triplets of texts."""

    def start_epoch(self, epoch: int) -> None:  # noqa: B027
        """Called before the batches of an epoch (from 0) are made, in every process that makes some.

        A worker process has a copy of the strategy from the start. So whatever changes over the epochs must follow from
        the epoch alone, or be read from a file.
        """

    def parts(self, epoch: int) -> list[Negatives]:
        """The strategies in use in an epoch (from 0): this one, or the parts of a mixture."""
        return [self]

    @abstractmethod
    def extra_negatives(self, context: DrawContext) -> np.ndarray:
        """(B, K) int64 rows of documents; K may be 0."""


class DrawnNegatives(Negatives):
    """A strategy that can draw any number of documents for each query."""

    stochastic = True

    def __init__(
        self, count: int = 1, in_batch_negatives: bool | None = None, mask_known_positives: bool = True
    ) -> None:
        super().__init__(in_batch_negatives, mask_known_positives)
        at_least(1, count=count)
        self.count = count

    @abstractmethod
    def draw(self, count: int, context: DrawContext) -> np.ndarray:
        """(B, count) int64 rows of documents."""

    def extra_negatives(self, context: DrawContext) -> np.ndarray:
        return self.draw(self.count, context)
