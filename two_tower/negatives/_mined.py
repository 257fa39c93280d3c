"""Documents that a search finds for a query but nobody judged relevant: what BM25 and ANN negatives have in common."""

from __future__ import annotations

import numpy as np

from two_tower.errors import UserError
from two_tower.negatives._table import Kept, draw_from
from two_tower.negatives.base import DrawnNegatives, Positives
from two_tower.negatives.random import random_rows

__all__ = ["MinedNegatives"]


class MinedNegatives(DrawnNegatives):
    """``count`` documents per query, drawn anew in every epoch from what a search ranks high.

    A subclass fills the table. A query without a candidate gets random documents.

    Args:
        count: extra documents per query.
        first_rank: the best rank that is taken, from 1.
        last_rank: the worst rank that is taken.
        relative_margin: leave out what scores within this share of the query's own positive or above it, see
            `two_tower.negatives._table.keep_candidates`; None keeps all.
        share_batch: see `Negatives`.
        mask_known: see `Negatives`.

    Attributes:
        table: (Q, C) int32 rows of documents, -1 after the last; None: random documents for all.

    Raises:
        UserError: a count or rank below 1, a last rank before the first, or a margin outside 0 to 1.
    """

    needs_collection: bool = True

    def __init__(
        self,
        count: int,
        first_rank: int,
        last_rank: int,
        relative_margin: float | None,
        share_batch: bool | None = None,
        mask_known: bool = True,
    ) -> None:
        super().__init__(count, share_batch, mask_known)
        if first_rank < 1:
            raise UserError(f"negatives.first_rank={first_rank} must be at least 1, the best rank.")
        if last_rank < first_rank:
            raise UserError(f"negatives.last_rank={last_rank} must not be less than negatives.first_rank={first_rank}.")
        if relative_margin is not None and not 0 <= relative_margin <= 1:
            raise UserError(f"negatives.relative_margin={relative_margin} must be from 0 to 1, or null to keep all.")
        self.first_rank, self.last_rank, self.relative_margin = first_rank, last_rank, relative_margin
        self.table: np.ndarray | None = None

    def draw(
        self,
        count: int,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(B, count)."""
        if self.table is None:
            return random_rows(query_rows, count, positives, rng, mask_known=self.mask_known)
        rows = draw_from(self.table[query_rows], count, rng)
        without = np.flatnonzero(rows[:, 0] < 0)
        if len(without):
            rows[without] = random_rows(query_rows[without], count, positives, rng, mask_known=self.mask_known)
        return rows

    def describe(self, queries: int, kept: Kept) -> str:
        """One line on what was mined.

        Args:
            queries: for how many.
            kept: what the filter did.
        """
        parts = [
            f"{kept.candidates / max(queries, 1):.1f} candidates for each of {queries:,} queries "
            f"(ranks {self.first_rank} to {self.last_rank})"
        ]
        if kept.known:
            parts.append(f"{kept.known:,} known positives left out")
        if kept.alike:
            margin = f"{1 - (self.relative_margin or 0):g} of the positive's score"
            parts.append(f"{kept.alike:,} left out as possibly relevant (above {margin})")
        if kept.without:
            parts.append(f"{kept.without:,} queries have none and get random documents")
        return ", ".join(parts)
