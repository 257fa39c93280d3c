"""A table of candidates for every training query: the filter for false negatives, and drawing from it."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from two_tower.negatives.base import Collection

# Queries whose candidates are compared with the known positives together.
BLOCK = 4096

_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a scorer finds for some queries.

    Attributes:
        rows: (Q, k) integers, document rows, best first; -1 where fewer were found.
        scores: (Q, k) float32.
        min_positive: (Q,) float32, the lowest score of a query's positives by the same scorer; infinite without one.
    """

    rows: np.ndarray
    scores: np.ndarray
    min_positive: np.ndarray

    def ranks(self, first: int, last: int) -> SearchResult:
        """The documents of these ranks only, from 1 and inclusive."""
        part = slice(first - 1, last)
        return SearchResult(self.rows[:, part], self.scores[:, part], self.min_positive)


@dataclass
class FilterCounts:
    """How many candidates the filter kept and left out.

    Attributes:
        candidates: (query, document) pairs that were kept.
        known: left out as known to be relevant, or equal in text to such a document.
        similar: left out because they score about as high as a positive, or higher.
        without: queries without any candidate.
    """

    candidates: int = 0
    known: int = 0
    similar: int = 0
    without: int = 0

    def __add__(self, other: FilterCounts) -> FilterCounts:
        return FilterCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def min_scores(pairs: tuple[np.ndarray, np.ndarray], scores: np.ndarray, queries: int) -> np.ndarray:
    """(Q,) float32, the lowest score of each query's positives; infinite where it has none.

    Args:
        pairs: (P,) query rows and (P,) document rows.
        scores: (P,) their scores.
        queries: Q.
    """
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
    """Leave out what is, or may well be, relevant.

    A candidate with score s is left out if s > p - relative_margin * abs(p), where p is the score of the query's
    positive: what is about as near as a relevant document is likely to be relevant itself, only nobody judged it. Of
    several positives the lowest score counts, as in Sentence Transformers' ``mine_hard_negatives``: it is relevant
    too. (NV-Retriever, Moreira et al. 2024, arXiv:2407.15831, calls this TopK-PercPos and finds 0.05 best.)

    Args:
        found: the candidates of the queries.
        query_rows: (Q,) rows of the training queries.
        collection: knows the positives.
        relative_margin: see above; None keeps all.
        mask_known_positives: leave known positives out.

    Returns:
        (Q, k) int32 document rows, ascending, -1 after the last; and how many there were of each kind. Not in the
        order of the scores: two that differ in the last digit may change places from one machine to another, and
        what is drawn would change with them.
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
        ascending = np.sort(np.where(good, rows, _NONE), axis=1)
        table[block] = np.where(ascending == _NONE, -1, ascending)
        counts += FilterCounts(*(int(mask.sum()) for mask in (good, known, similar, ~good.any(1))))
    return table, counts


def draw_from(candidates: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(B, count) int64: ``count`` of each row's candidates at random; none twice before all were drawn.

    Args:
        candidates: (B, C) integers, -1 after the last of a row; -1 is drawn where there is none.
        count: how many to draw.
        rng: the source of chance.
    """
    rows, every = candidates.astype(np.int64), np.arange(len(candidates))
    available = (rows >= 0).sum(1)
    for j in range(min(count, rows.shape[1])):  # Fisher and Yates: move one of the rest to the front
        left = np.maximum(available - j, 1)
        chosen = np.minimum(j + (rng.random(len(rows)) * left).astype(np.int64), rows.shape[1] - 1)
        rows[every, j], rows[every, chosen] = rows[every, chosen], rows[every, j]
    return rows[every[:, None], np.arange(count) % np.maximum(available, 1)[:, None]]
