"""Which passages came with which query, in rows of the queries and of the corpus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from two_tower.data.base import QUERIES
from two_tower.data.reading.numbering import Numbering
from two_tower.data.reading.unique import hash_rows

__all__ = ["Links", "LinksBuilder"]


@dataclass(frozen=True)
class Links:
    """The passages of each query of a split.

    Attributes:
        queries: Q rows of the schema `QUERIES`.
        query_rows: (L,) int32, ascending.
        document_rows: (L,) int32; ascending for each query, no pair twice.
        grades: (L,) int32; above 0 is relevant.
    """

    queries: pa.Table
    query_rows: np.ndarray
    document_rows: np.ndarray
    grades: np.ndarray

    @property
    def answered(self) -> np.ndarray:
        """(Q,) bool: which queries have a relevant passage."""
        answered = np.zeros(len(self.queries), bool)
        answered[self.query_rows[self.grades > 0]] = True
        return answered

    def part(self, chosen: np.ndarray) -> Links:
        """The links of the queries that are chosen, (Q,) bool."""
        kept = chosen[self.query_rows]
        rows = (np.cumsum(chosen) - 1).astype(np.int32)
        return Links(
            self.queries.filter(pa.array(chosen)),
            rows[self.query_rows[kept]],
            self.document_rows[kept],
            self.grades[kept],
        )

    def triplets(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every (query, relevant passage, other passage) of the queries ``first`` to ``stop`` (exclusive).

        Returns:
            Query rows and two times document rows, (T,) int32 each, query by query.
        """
        begin, end = np.searchsorted(self.query_rows, (first, stop))
        query, document = self.query_rows[begin:end], self.document_rows[begin:end]
        relevant = self.grades[begin:end] > 0
        positives, negatives = np.flatnonzero(relevant), np.flatnonzero(~relevant)
        # The negatives of one query lie together: where they begin, and how many there are, for each positive.
        start = np.searchsorted(query[negatives], query[positives])
        count = np.searchsorted(query[negatives], query[positives], side="right") - start
        positive = np.repeat(positives, count)
        within = np.arange(len(positive)) - np.repeat(np.cumsum(count) - count, count)
        negative = negatives[np.repeat(start, count) + within]
        return query[positive], document[positive], document[negative]


class LinksBuilder:
    """Collects the links of a split; a query may come more than once."""

    def __init__(self) -> None:
        self._numbering = Numbering()
        self._queries: list[pa.RecordBatch] = []
        self._query_rows: list[np.ndarray] = []
        self._document_rows: list[np.ndarray] = []
        self._grades: list[np.ndarray] = []

    def add(
        self, ids: pa.Array, texts: pa.Array, owner: np.ndarray, document_rows: np.ndarray, grades: np.ndarray
    ) -> None:
        """Take queries in, and passages that came with them.

        Args:
            ids: (Q,) string.
            texts: (Q,) string; that of an id's first appearance counts.
            owner: (P,) integers, which of the Q queries a passage came with.
            document_rows: (P,) int32.
            grades: (P,) int32.
        """
        numbers, new = self._numbering.add(hash_rows(pa.chunked_array([ids])))
        self._queries.append(pa.record_batch([ids, texts], schema=QUERIES).filter(pa.array(new)))
        self._query_rows.append(numbers[owner])
        self._document_rows.append(document_rows)
        self._grades.append(grades)

    def build(self) -> Links:
        """The links in order, each pair once, with the highest of its grades."""
        queries = pa.Table.from_batches(self._queries, QUERIES).combine_chunks()
        query_rows, document_rows = np.concatenate(self._query_rows), np.concatenate(self._document_rows)
        pairs = query_rows.astype(np.int64) << 32 | document_rows
        order = np.argsort(pairs, kind="stable")  # fast because most rows are in order
        first = np.flatnonzero(np.diff(pairs[order], prepend=-1))
        kept, grades = order[first], np.concatenate(self._grades)[order]
        grades = np.maximum.reduceat(grades, first) if len(first) else grades
        return Links(queries, query_rows[kept], document_rows[kept], grades)
