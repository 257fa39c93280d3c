"""What BM25 and ANN negatives have in common: candidates of a search, filtered, and negatives drawn from them."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import numpy as np

from two_tower.negatives.base import Collection, DrawContext, DrawnNegatives
from two_tower.negatives.random import random_rows

BLOCK = 4096  # queries whose candidates are filtered together
_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The candidates that a search finds for some queries."""

    rows: np.ndarray  # (Q, k) integers, document rows, best first; -1 where fewer were found
    scores: np.ndarray  # (Q, k) float32
    min_positive: np.ndarray  # (Q,) float32, the lowest score of a positive by the same scorer; infinite without one

    def ranks(self, first: int, last: int) -> SearchResult:
        """The candidates of these ranks only, from 1 and inclusive."""
        part = slice(first - 1, last)
        return SearchResult(self.rows[:, part], self.scores[:, part], self.min_positive)


@dataclass
class FilterCounts:
    """How many candidates the filter kept, and how many it dropped."""

    kept: int = 0  # candidates that became negatives
    known: int = 0  # dropped as known to be relevant, or equal in text to such a document
    similar: int = 0  # dropped because they score about as high as a positive, or higher
    without: int = 0  # queries left without any

    def __add__(self, other: FilterCounts) -> FilterCounts:
        return FilterCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def min_scores(pairs: tuple[np.ndarray, np.ndarray], scores: np.ndarray, queries: int) -> np.ndarray:
    """(Q,) float32, the lowest score of each query's positives, infinite without any, from (P,) pairs and scores."""
    lowest = np.full(queries, np.inf, np.float32)
    np.minimum.at(lowest, pairs[0], scores)
    return lowest


def filter_candidates(
    found: SearchResult,
    query_rows: np.ndarray,
    collection: Collection,
    relative_margin: float | None,
    mask_known_positives: bool = True,
) -> tuple[np.ndarray, FilterCounts]:
    """Drop the candidates that are, or may well be, relevant; ``query_rows`` are (Q,) rows of training queries.

    A candidate with score s is dropped if s > p - relative_margin * abs(p), where p is the score of the query's
    positive: what scores about as high as a relevant document is probably relevant too, and was never judged. Of
    several positives the lowest score counts, as in Sentence Transformers' ``mine_hard_negatives``. (NV-Retriever,
    Moreira et al. 2024, arXiv:2407.15831, calls this TopK-PercPos and finds 0.05 best.) None keeps these.

    Returns (Q, k) int32 document rows, ascending, -1 after the last, and the counts. Not in the order of the scores:
    two that differ in the last digit may swap places on another machine, and what is drawn would change with them.
    """
    table, counts = np.full(found.rows.shape, -1, np.int32), FilterCounts()
    threshold = found.min_positive.astype(np.float64)
    if relative_margin is not None:
        threshold -= relative_margin * np.abs(threshold, where=np.isfinite(threshold), out=np.zeros_like(threshold))
    for start in range(0, len(table), BLOCK):
        block = slice(start, start + BLOCK)
        rows = found.rows[block].astype(np.int64)
        filled = rows >= 0
        known = np.zeros_like(filled)
        if mask_known_positives:
            known = filled & collection.positives.contains(query_rows[block, None], np.maximum(rows, 0))
        similar = filled & ~known
        similar &= (found.scores[block] > threshold[block, None]) if relative_margin is not None else False
        good = filled & ~known & ~similar
        ascending = np.sort(np.where(good, rows, _LAST), axis=1)
        table[block] = np.where(ascending == _LAST, -1, ascending)
        counts += FilterCounts(*(int(mask.sum()) for mask in (good, known, similar, ~good.any(1))))
    return table, counts


def draw_from(table: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(B, count) int64: ``count`` random entries of each row, none twice before all were drawn.

    ``table`` is (B, C) integers, with -1 after the last entry of a row; -1 is drawn from a row without any.
    """
    rows, every = table.astype(np.int64), np.arange(len(table))
    available = (rows >= 0).sum(1)
    for j in range(min(count, rows.shape[1])):  # Fisher and Yates: move one of the rest to the front
        left = np.maximum(available - j, 1)
        chosen = np.minimum(j + (rng.random(len(rows)) * left).astype(np.int64), rows.shape[1] - 1)
        rows[every, j], rows[every, chosen] = rows[every, chosen], rows[every, j]
    return rows[every[:, None], np.arange(count) % np.maximum(available, 1)[:, None]]


class MinedNegatives(DrawnNegatives):
    """``count`` documents per query, drawn anew in every epoch from the filtered candidates of a search.

    A subclass fills ``table``: (Q, C) int32 rows of documents, -1 after the last. A query without any gets random
    documents, and so do all queries while there is no table.
    """

    needs_collection = True

    def __init__(
        self,
        count: int = 1,
        first_rank: int = 1,
        last_rank: int = 50,
        relative_margin: float | None = 0.05,
        in_batch_negatives: bool | None = None,
        mask_known_positives: bool = True,
    ) -> None:
        super().__init__(count, in_batch_negatives, mask_known_positives)
        if first_rank < 1:
            raise ValueError(f"first_rank={first_rank} must be at least 1, the best rank")
        if last_rank < first_rank:
            raise ValueError(f"last_rank={last_rank} must not be less than first_rank={first_rank}")
        if relative_margin is not None and not 0 <= relative_margin <= 1:
            raise ValueError(f"relative_margin={relative_margin} must be from 0 to 1, or null to keep all")
        self.first_rank, self.last_rank, self.relative_margin = first_rank, last_rank, relative_margin
        self.table: np.ndarray | None = None

    def draw(self, count: int, context: DrawContext) -> np.ndarray:
        if self.table is None:
            return random_rows(count, context, redraw_positives=self.mask_known_positives)
        rows = draw_from(self.table[context.query_rows], count, context.rng)
        without = np.flatnonzero(rows[:, 0] < 0)
        if len(without):
            some = replace(context, query_rows=context.query_rows[without])
            rows[without] = random_rows(count, some, redraw_positives=self.mask_known_positives)
        return rows

    def describe(self, queries: int, counts: FilterCounts) -> str:
        """One line on what was mined."""
        each = counts.kept / max(queries, 1)
        parts = [f"{each:.1f} for each of {queries:,} queries (ranks {self.first_rank} to {self.last_rank})"]
        if counts.known:
            parts.append(f"{counts.known:,} known positives dropped")
        if counts.similar:
            margin = f"{1 - (self.relative_margin or 0):g} of the positive's score"
            parts.append(f"{counts.similar:,} dropped as possibly relevant (above {margin})")
        if counts.without:
            parts.append(f"{counts.without:,} queries have none and get random documents")
        return ", ".join(parts)
