"""A table of candidates for every training query: the filter for false negatives, and drawing from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from two_tower.negatives.base import Collection

__all__ = ["Found", "Kept", "draw_from", "keep_candidates", "least_scores"]

# Queries whose candidates are compared with the known positives together.
BLOCK = 4096

_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Found:
    """What a scorer finds for some queries.

    Attributes:
        rows: (Q, k) integers, document rows, best first; -1 where fewer were found.
        scores: (Q, k) float32.
        least: (Q,) float32, the least score of a query's positives by the same scorer; infinite where it has none.
    """

    rows: np.ndarray
    scores: np.ndarray
    least: np.ndarray


@dataclass
class Kept:
    """How many candidates the filter kept and left out.

    Attributes:
        candidates: (query, document) pairs that were kept.
        known: left out as known to be relevant, or equal in text to that.
        alike: left out since they score about as high as a positive, or higher.
        without: queries without any candidate.
    """

    candidates: int = 0
    known: int = 0
    alike: int = 0
    without: int = 0

    def __add__(self, other: Kept) -> Kept:
        return Kept(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


def least_scores(pairs: tuple[np.ndarray, np.ndarray], scores: np.ndarray, queries: int) -> np.ndarray:
    """(Q,) float32, the least score of each query's positives; infinite where it has none.

    Args:
        pairs: (P,) query rows and (P,) document rows.
        scores: (P,) their scores.
        queries: Q.
    """
    least = np.full(queries, np.inf, np.float32)
    np.minimum.at(least, pairs[0], scores)
    return least


def keep_candidates(
    found: Found,
    query_rows: np.ndarray,
    collection: Collection,
    relative_margin: float | None,
    mask_known: bool = True,
) -> tuple[np.ndarray, Kept]:
    """Leave out what is, or may well be, relevant.

    A candidate with score s is left out if s > p - relative_margin * abs(p), where p is the score of the query's
    positive: what is about as near as a relevant document is likely to be relevant itself, and only nobody judged
    it. Of several positives the least counts, as in Sentence Transformers' ``mine_hard_negatives``: it is relevant,
    too. (NV-Retriever, Moreira et al. 2024, arXiv:2407.15831, calls this TopK-PercPos and finds 0.05 best.)

    Args:
        found: the candidates of the queries.
        query_rows: (Q,) rows of the training queries.
        collection: knows the positives.
        relative_margin: see above; None keeps all.
        mask_known: leave known positives out.

    Returns:
        (Q, k) int32 document rows, ascending, -1 after the last; and how many there were of which kind. Not in the
        order of the scores: two that differ in the last digit may change places from one machine to another, and
        what is drawn would change with them.
    """
    table, kept = np.full(found.rows.shape, -1, np.int32), Kept()
    threshold = found.least.astype(np.float64)
    if relative_margin is not None:
        threshold -= relative_margin * np.abs(threshold, where=np.isfinite(threshold), out=np.zeros_like(threshold))
    for start in range(0, len(table), BLOCK):
        block = slice(start, start + BLOCK)
        rows = found.rows[block].astype(np.int64)
        there = rows >= 0
        known = np.zeros_like(there)
        if mask_known:
            known = there & collection.positives.contains(query_rows[block, None], np.maximum(rows, 0))
        alike = there & ~known
        alike &= (found.scores[block] > threshold[block, None]) if relative_margin is not None else False
        good = there & ~known & ~alike
        ascending = np.sort(np.where(good, rows, _NONE), axis=1)
        table[block] = np.where(ascending == _NONE, -1, ascending)
        kept += Kept(*(int(mask.sum()) for mask in (good, known, alike, ~good.any(1))))
    return table, kept


def draw_from(candidates: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(B, count) int64: so many of each row's candidates at random; none twice before all were drawn.

    Args:
        candidates: (B, C) integers, -1 after the last of a row; -1 is drawn where there is none.
        count: how many to draw.
        rng: the source of chance.
    """
    rows, every = candidates.astype(np.int64), np.arange(len(candidates))
    there = (rows >= 0).sum(1)
    for j in range(min(count, rows.shape[1])):  # Fisher and Yates: one of those that are left to the front
        left = np.maximum(there - j, 1)
        chosen = np.minimum(j + (rng.random(len(rows)) * left).astype(np.int64), rows.shape[1] - 1)
        rows[every, j], rows[every, chosen] = rows[every, chosen], rows[every, j]
    return rows[every[:, None], np.arange(count) % np.maximum(there, 1)[:, None]]
