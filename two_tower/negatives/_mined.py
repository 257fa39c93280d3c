"""What BM25 and ANN negatives have in common: documents that a search finds and nobody judged relevant."""

from __future__ import annotations

import numpy as np

from two_tower.negatives._table import FilterCounts, draw_from
from two_tower.negatives.base import DrawContext, DrawnNegatives
from two_tower.negatives.random import random_rows


class MinedNegatives(DrawnNegatives):
    """``count`` documents per query, drawn anew in every epoch from what a search ranks high.

    A subclass fills the table. A query without a candidate gets random documents.

    Args:
        count: extra negatives per query.
        first_rank: the best rank that is taken, from 1.
        last_rank: the worst rank that is taken.
        relative_margin: see `two_tower.negatives._table.filter_candidates`; None keeps all.
        in_batch_negatives: see `two_tower.negatives.base.Negatives`.
        mask_known_positives: likewise.

    Attributes:
        table: (Q, C) int32 rows of documents, -1 after the last; None: random documents for all.
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
            rows[without] = random_rows(count, context.only(without), redraw_positives=self.mask_known_positives)
        return rows

    def describe(self, queries: int, counts: FilterCounts) -> str:
        """One line on what was mined for so many queries."""
        parts = [
            f"{counts.candidates / max(queries, 1):.1f} candidates for each of {queries:,} queries "
            f"(ranks {self.first_rank} to {self.last_rank})"
        ]
        if counts.known:
            parts.append(f"{counts.known:,} known positives left out")
        if counts.similar:
            margin = f"{1 - (self.relative_margin or 0):g} of the positive's score"
            parts.append(f"{counts.similar:,} left out as possibly relevant (above {margin})")
        if counts.without:
            parts.append(f"{counts.without:,} queries have none and get random documents")
        return ", ".join(parts)
